"""A line to an object store that can be cut."""

import select
import socket
import socketserver
import threading


class Link(socketserver.BaseRequestHandler):
    """One connection to the store, for as long as the line is there."""

    server: "Line"

    def handle(self):
        with socket.create_connection(self.server.store) as store:
            other = {self.request: store, store: self.request}
            while self.server.there:
                for side in select.select(list(other), [], [], 0.1)[0]:
                    data = side.recv(1 << 16)
                    if not data:
                        return
                    other[side].sendall(data)


class Line(socketserver.ThreadingTCPServer):
    """A line to the store that can be cut: connections end then, and new ones at once."""

    daemon_threads = True
    there = True

    def __init__(self, server):
        super().__init__(("127.0.0.1", 0), Link)
        host, _, self.port = server.rpartition("/")[2].partition(":")
        self.store = host, int(self.port)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def through(self, address):
        """The address of a place in the store by way of this line."""
        return address.replace(self.port, str(self.server_address[1]))
