"""A customer who never sleeps: asks the shop's front page about a hundred times a second, and now and then for what is not there
yet. Prints one JSON line a second with everything seen so far. Plain HTTP and the standard library, nothing of a mesh."""
import collections
import http.client
import json
import sys
import threading
import time

seen = {
    "answers": 0, "failures": 0, "errors": [], "pods": collections.Counter(), "versions": collections.Counter(),
    "firstAnswer": {},
}
lock = threading.Lock()


def note(document):
    seen["pods"][f'{document["service"]}/{document["pod"]}'] += 1
    seen["versions"][f'{document["service"]} {document["version"]}'] += 1
    for call in document["calls"]:
        note(call)


def shop():
    connection = None
    while True:
        began = time.monotonic()
        try:
            connection = connection or http.client.HTTPConnection("storefront", 80, timeout=10)
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read()
            with lock:
                if response.status == 200:
                    seen["answers"] += 1
                    note(json.loads(body))
                else:
                    seen["failures"] += 1
                    seen["errors"] = (seen["errors"] + [f"{response.status} {response.getheader('apus-reason')} {body[:300]!r}"])[-5:]
            if response.will_close:
                connection.close()
                connection = None
        except Exception as error:
            with lock:
                seen["failures"] += 1
                seen["errors"] = (seen["errors"] + [repr(error)])[-5:]
            connection.close()
            connection = None
        time.sleep(max(0, 0.04 - (time.monotonic() - began)))


def wait_for(service):
    """Asks every 5 ms until the service answers, and notes when it first did."""
    while True:
        try:
            connection = http.client.HTTPConnection(service, 80, timeout=2)
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                with lock:
                    seen["firstAnswer"][service] = time.time()
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.005)


for _ in range(4):
    threading.Thread(target=shop, daemon=True).start()
for service in sys.argv[1:]:
    threading.Thread(target=wait_for, args=(service,), daemon=True).start()
while True:
    time.sleep(1)
    with lock:
        print(json.dumps({"time": time.time(), **seen}), flush=True)
