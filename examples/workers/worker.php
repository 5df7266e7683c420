<?php
// A worker in PHP, one job at a time. RECACHE_URL (several: with commas) and RECACHE_TOKEN say where; SIGTERM or Ctrl-C drains.
$handlers = [
    'double' => fn($number) => $number * 2,
    'slow' => function ($seconds) {
        for ($until = microtime(true) + $seconds; microtime(true) < $until; usleep(20000)) {
            stop_if_told();
        }
        return 'slept';
    },
];
[$stop, $draining, $token, $session, $number, $heard] = [false, false, null, null, 0, 0];
$urls = explode(',', getenv('RECACHE_URL') ?: 'http://127.0.0.1:7878');
function send($path, $body, $method = 'POST') {
    global $session, $urls;
    $http = ['method' => $method, 'ignore_errors' => true, 'content' => json_encode($body),
        'header' => ['Content-Type: application/json', 'Authorization: Bearer ' . getenv('RECACHE_TOKEN'),
            'Recache-Session-Secret: ' . ($session['secret'] ?? '')]];
    // The same call again is safe, at any server; a beat may come between, and have found the next one already.
    for ($pause = 0.05; ; $url === $urls[0] && ($urls[] = array_shift($urls))) {
        $http['timeout'] = 2 + 4 * $pause; // a frozen server must not cost the lease
        $answer = @file_get_contents(($url = $urls[0]) . $path, false, stream_context_create(['http' => $http]));
        $status = $answer === false ? 0 : (int) explode(' ', $http_response_header[0])[1];
        if ($status >= 200 && $status < 300) return json_decode($answer, true);
        if ($status >= 400 && $status < 500 && $status != 429) exit("$answer\n");
        usleep((int) (1e6 * $pause = min($pause * mt_rand(150, 250) / 100, 1)));
    }
}
function call($body) { return send("/v1/workers/{$GLOBALS['session']['session']}/call", $body); }
function beat() { // once a second while a handler runs, whatever it does
    [$GLOBALS['heard'], $answer] = [microtime(true), call(['held' => [$GLOBALS['token']]])];
    $GLOBALS['stop'] = $GLOBALS['stop'] || !$answer['alive'] || $answer['stop'];
    pcntl_alarm(1);
}
function stop_if_told() { // asks five times a second at most
    if (microtime(true) > $GLOBALS['heard'] + 0.2) beat();
    if ($GLOBALS['stop']) throw new RuntimeException('told to stop');
}
pcntl_async_signals(true);
pcntl_signal(SIGALRM, 'beat');
foreach ([SIGTERM, SIGINT] as $signal) pcntl_signal($signal, function () { $GLOBALS['draining'] = true; });
for ($alive = false; !$draining; $alive = $answer['alive']) {
    if (!$alive) { // at the start, and when this process was silent for longer than its lease
        $names = array_map(fn($name) => ['name' => $name], array_keys($handlers));
        [$session, $number] = [send('/v1/workers', ['name' => 'php', 'handlers' => $names]), 0];
    }
    $answer = call(['held' => [], 'claim' => ['max' => 1, 'number' => ++$number], 'wait_ms' => 1000]);
    foreach ($answer['jobs'] as $job) {
        [$token, $stop] = [$job['token'], false];
        pcntl_alarm(1);
        try {
            $end = ['outcome' => 'completed', 'output' => $handlers[$job['handler']]($job['input'])];
        } catch (Throwable $error) {
            $end = ['outcome' => 'failed', 'error' => ['kind' => 'retryable', 'message' => $error->getMessage()]];
        }
        pcntl_alarm(0);
        if (!$stop) call(['settle' => [['token' => $token] + $end]]);
    }
}
send("/v1/workers/{$session['session']}", (object) [], 'DELETE');
