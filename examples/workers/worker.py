#!/usr/bin/env python3
"""A worker in Python, standard library only. RECACHE_URL (several: with commas) and RECACHE_TOKEN say where; SIGTERM drains."""
import http.client, json, os, random, signal, threading, time, urllib.error, urllib.request

URLS, TOKEN = os.environ.get("RECACHE_URL", "http://127.0.0.1:7878").split(","), os.environ.get("RECACHE_TOKEN", "")
SLOTS, draining = 4, threading.Event()


def slow(seconds, stop):
    if stop.wait(seconds):  # set when the job was cancelled, superseded or lost
        raise RuntimeError("told to stop")
    return "slept"


HANDLERS = {"double": lambda number, stop: number * 2, "slow": slow}


def send(path, body, secret="", method="POST"):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}", "Recache-Session-Secret": secret}
    pause = 0.05
    while True:  # no answer, or one that says "later": the same call again is safe, at any server
        request = urllib.request.Request(URLS[0] + path, json.dumps(body).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=2 + 4 * pause) as answer:  # a frozen server must not cost the lease
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise SystemExit(error.read().decode())
        except (OSError, http.client.HTTPException, ValueError): pass
        URLS.append(URLS.pop(0))
        time.sleep(pause := min(pause * random.uniform(1.5, 2.5), 1))


def work(path, secret, job, jobs):
    token, stop = job["token"], jobs[job["token"]]
    try:
        end = {"outcome": "completed", "output": HANDLERS[job["handler"]](job["input"], stop)}
    except Exception as error:
        end = {"outcome": "failed", "error": {"kind": "retryable", "message": str(error)}}
    try:
        stop.is_set() or send(f"{path}/call", {"settle": [{"token": token, **end}]}, secret)
    finally:
        jobs.pop(token, None)  # named in `held` until it is settled


[signal.signal(name, lambda *_: draining.set()) for name in (signal.SIGTERM, signal.SIGINT)]
answer, jobs = {"alive": False}, {}
while not draining.is_set() or jobs:
    if not answer["alive"]:  # at the start, and when this process was silent for longer than its lease
        opened = send("/v1/workers", {"name": "python", "handlers": [{"name": h} for h in HANDLERS], "slots": SLOTS})
        path, secret, number, jobs = f"/v1/workers/{opened['session']}", opened["secret"], 0, {}
    held, number = list(jobs), number + 1
    room = 0 if draining.is_set() else SLOTS - len(held)
    answer = send(f"{path}/call", {"held": held, "claim": {"max": room, "number": number}, "wait_ms": 1000}, secret)
    for token in [stop["token"] for stop in answer["stop"]] if answer["alive"] else held:
        jobs.get(token, threading.Event()).set()
    for job in answer["jobs"]:
        jobs[job["token"]] = threading.Event()
        threading.Thread(target=work, args=(path, secret, job, jobs), daemon=True).start()
send(path, {}, secret, "DELETE")
