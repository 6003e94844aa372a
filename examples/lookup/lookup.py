#!/usr/bin/env python3
"""Finds the instances of a service of the zone, with the standard library alone.

    lookup.py SERVICE                          print its endpoints now and after each change
    lookup.py --register SERVICE ID ADDR PORT  keep an endpoint of the app's own registered until the end of input

The registry, and the key that registering needs, are in MAMMOTH_REGISTRY: http://APP:KEY@host:port.
"""

import base64
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request


class Registry:
    def __init__(self, address):
        parts = urllib.parse.urlsplit(address)
        self.base = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self.key = None
        if parts.password:
            pair = f"{parts.username}:{parts.password}".encode()
            self.key = "Basic " + base64.b64encode(pair).decode()

    def call(self, method, path, body=None, timeout=60):
        request = urllib.request.Request(self.base + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self.key and method != "GET":
            request.add_header("Authorization", self.key)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)

    def watch(self, service):
        """Yields the service now and after each change; the last answer stands while the registry is away."""
        index, path = 0, "/v1/registry/services/" + urllib.parse.quote(service)
        while True:
            try:
                answer = self.call("GET", f"{path}?index={index}&wait=30s")
            except (urllib.error.URLError, OSError):
                time.sleep(1)
                continue
            # 64-bit numbers are strings in protobuf's JSON.
            if int(answer["index"]) != index:
                index = int(answer["index"])
                yield answer

    def register(self, service, instance, address, port, lease=10):
        """Registers an endpoint, and returns a function that takes it out again."""
        path = "/v1/registry/services/{}/endpoints/{}".format(
            urllib.parse.quote(service), urllib.parse.quote(instance)
        )
        body = {"address": address, "port": port, "lease": f"{lease}s"}
        self.call("PUT", path, body)
        ended = threading.Event()

        def renew():
            while not ended.wait(lease / 3):
                try:
                    self.call("PUT", path, body, timeout=lease)
                except OSError:
                    pass  # It is tried again, and the lease is longer than one try.

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()

        def unregister():
            ended.set()
            thread.join()
            self.call("DELETE", path)

        return unregister


def main(arguments):
    registry = Registry(os.environ["MAMMOTH_REGISTRY"])
    if arguments[:1] == ["--register"]:
        service, instance, address, port = arguments[1:]
        unregister = registry.register(service, instance, address, int(port))
        sys.stdin.read()
        unregister()
        return
    (service,) = arguments
    for state in registry.watch(service):
        print(" ".join(f"{e['id']}={e['address']}:{e['port']}" for e in state["endpoints"]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
