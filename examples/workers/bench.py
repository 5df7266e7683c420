#!/usr/bin/env python3
"""How fast one Python worker is served: jobs/s in batches and one by one, beside the bare round trip of the same run.

    recache serve --database sqlite:bench.db &
    python3 examples/workers/bench.py --jobs 20000 --singles 3000 --threads 4
"""
import argparse, http.client, json, threading, time, urllib.parse

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--url", default="http://127.0.0.1:7878")
parser.add_argument("--token", default="")
parser.add_argument("--jobs", type=int, default=20000, help="jobs that are done in batches")
parser.add_argument("--batch", type=int, default=100)
parser.add_argument("--singles", type=int, default=3000, help="jobs that are done one by one")
parser.add_argument("--threads", type=int, default=4, help="sessions that do jobs one by one, each a thread")
asked = parser.parse_args()
place = urllib.parse.urlsplit(asked.url)


class Connection:
    """One connection that is kept open."""

    def __init__(self):
        self.http = http.client.HTTPConnection(place.hostname, place.port)
        self.headers = {"Content-Type": "application/json", "Authorization": f"Bearer {asked.token}"}

    def send(self, method, path, body=None):
        self.http.request(method, path, body if body is None else json.dumps(body), self.headers)
        answer = self.http.getresponse()
        text = answer.read()
        assert answer.status < 300, (answer.status, text)
        return text if method == "GET" else json.loads(text)

    def register(self, name):
        opened = self.send("POST", "/v1/workers", {"name": "bench", "handlers": [{"name": name}], "lease_ms": 30000})
        self.headers["Recache-Session-Secret"] = opened["secret"]
        self.path, self.number = f"/v1/workers/{opened['session']}", 0

    def exchange(self, done, room):
        """Settles these jobs and claims more, in one call."""
        self.number += 1
        settle = [{"token": job["token"], "outcome": "completed"} for job in done]
        call = {"held": [], "settle": settle, "claim": {"max": room, "number": self.number}}
        return self.send("POST", f"{self.path}/call", call)["jobs"]


def submit(name, count):
    # A connection of its own: the server closes one that was idle for long.
    connection = Connection()
    for start in range(0, count, 1000):
        jobs = [{"handler": name, "input": None} for _ in range(min(1000, count - start))]
        connection.send("POST", "/v1/jobs/bulk", {"jobs": jobs})


def drain(name, room, times):
    connection = Connection()
    connection.register(name)
    jobs = connection.exchange([], room)
    while jobs:
        began = time.perf_counter()
        jobs = connection.exchange(jobs, room)
        times.append(time.perf_counter() - began)
    connection.send("DELETE", connection.path, {})


def show(what, times):
    times.sort()
    p50, p99 = times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000
    print(f"{what:44} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms")


main = Connection()
bare = []
for _ in range(2000):
    began = time.perf_counter()
    main.send("GET", "/health/live")
    bare.append(time.perf_counter() - began)
show("bare round trip (GET /health/live)", bare)

submit("bench_batch", asked.jobs)
calls, began = [], time.perf_counter()
drain("bench_batch", asked.batch, calls)
took = time.perf_counter() - began
print(f"{asked.jobs} jobs, {asked.batch} a call, one session: {asked.jobs / took:9.0f} jobs/s")
show("one call: settle and claim a batch", calls)

for threads in sorted({1, asked.threads}):
    submit("bench_single", asked.singles)
    calls, began = [], time.perf_counter()
    running = [threading.Thread(target=drain, args=("bench_single", 1, calls)) for _ in range(threads)]
    [thread.start() for thread in running]
    [thread.join() for thread in running]
    took = time.perf_counter() - began
    print(f"{asked.singles} jobs, one by one, {threads} session(s): {asked.singles / took:9.0f} jobs/s")
    show("one call: settle one and claim one", calls)
