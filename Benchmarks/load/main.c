// load http1|http2|tcp KEY=VALUE…: connects, warms up, says "ready", waits for a line, runs, prints one line of JSON, and keeps
// its connections until the next line.
#include "common.h"

#include <string.h>

int main(int count, char **arguments) {
    if (count < 2) fail("usage: load http1|http2|tcp KEY=VALUE…");
    settings given = read_settings(count - 2, arguments + 2);
    if (!strcmp(arguments[1], "http1")) return run_http1(&given);
    if (!strcmp(arguments[1], "http2")) return run_http2(&given);
    if (!strcmp(arguments[1], "tcp")) return run_tcp(&given);
    fail("%s: expected http1, http2 or tcp", arguments[1]);
}
