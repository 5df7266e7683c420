#!/usr/bin/env bash
# A worker in bash with curl and jq, one job at a time. RECACHE_URL (several: with commas) and RECACHE_TOKEN say where; SIGTERM drains.
# A handler is a function `do_NAME`: JSON in on stdin, JSON out on stdout, another exit status than 0 for a failure.
set -u
IFS=, read -ra urls <<<"${RECACHE_URL:-http://127.0.0.1:7878}"
secret='' session='' draining='' number=0 out=$(mktemp)
trap 'draining=1' TERM INT
trap 'rm -f "$out" "$out.at"' EXIT
do_double() { jq '. * 2'; }
do_slow() { exec sleep "$(jq -r .)"; }

send() { # METHOD PATH BODY; no answer, or one that says "later": the same call again is safe, at any server
  local at tries answer status
  for ((at = $(cat "$out.at" 2>/dev/null || echo 0), tries = 0; ; at++, tries++)); do # a frozen server must not cost the lease
    answer=$(curl -sS -m $((tries < 4 ? 2 + tries : 6)) -X "$1" "${urls[at % ${#urls[@]}]}$2" -H 'Content-Type: application/json' \
      -H "Authorization: Bearer ${RECACHE_TOKEN:-}" -H "Recache-Session-Secret: $secret" -w '\n%{http_code}' --data-binary @- <<<"$3" 2>/dev/null)
    status=${answer##*$'\n'} answer=${answer%$'\n'*}
    case $status in
      2??) echo $at >"$out.at"; printf '%s' "$answer"; return ;;
      429 | 5?? | 000 | '') sleep "0.$((tries < 4 ? 1 + tries : 8))" ;;
      *) printf '%s\n' "$answer" >&2; return 1 ;;
    esac
  done
}
call() { send POST "/v1/workers/$session/call" "$1"; }

work() { # TOKEN HANDLER INPUT
  "do_$2" <<<"$3" >"$out" 2>&1 &
  local pid=$! stopped='' answer
  while kill -0 $pid 2>/dev/null; do # a sign of life; comes back at once when the job is to stop
    answer=$(call "{\"held\":[\"$1\"],\"wait_ms\":200}") || exit 1
    if [ "$(jq '.alive and (.stop | length == 0)' <<<"$answer")" != true ]; then
      kill $pid 2>/dev/null
      stopped=1
    fi
  done
  wait $pid
  local status=$?
  [ -n "$stopped" ] && return
  if [ $status = 0 ]; then
    call "$(jq -c --arg t "$1" '{settle: [{token: $t, outcome: "completed", output: .}]}' <"$out" | grep . ||
      jq -nc --arg t "$1" '{settle: [{token: $t, outcome: "completed"}]}')"
  else
    call "$(jq -nc --arg t "$1" --arg m "exit status $status: $(tail -c 500 "$out")" \
      '{settle: [{token: $t, outcome: "failed", error: {kind: "retryable", message: $m}}]}')"
  fi >/dev/null
}

alive=false
while [ -z "$draining" ]; do
  if [ "$alive" != true ]; then # at the start, and when this process was silent for longer than its lease
    opened=$(send POST /v1/workers '{"name":"bash","handlers":[{"name":"double"},{"name":"slow"}]}') || exit 1
    session=$(jq -r .session <<<"$opened") secret=$(jq -r .secret <<<"$opened") number=0
  fi
  answer=$(call "{\"held\":[],\"claim\":{\"max\":1,\"number\":$((++number))},\"wait_ms\":1000}") || exit 1
  alive=$(jq .alive <<<"$answer")
  job=$(jq -c '.jobs[0] // empty' <<<"$answer")
  [ -n "$job" ] && work "$(jq -r .token <<<"$job")" "$(jq -r .handler <<<"$job")" "$(jq -c .input <<<"$job")"
done
send DELETE "/v1/workers/$session" '{}' >/dev/null
