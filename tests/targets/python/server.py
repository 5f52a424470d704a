# A web server on asyncio whose every answer is made anew: for `cargo xtask bench modes`.
# Its argument is the port.
import asyncio
import json
import sys

# Objects of up to 512 bytes are Python's own business; what is larger is allocated.
NUMBERS = 200


def page(number):
    rows = [{"number": number + row, "square": row * row} for row in range(NUMBERS)]
    return json.dumps({"rows": rows}).encode()


class Page(asyncio.Protocol):
    def __init__(self):
        self.number = 0
        self.asked = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.asked += data
        while (end := self.asked.find(b"\r\n\r\n")) >= 0:
            self.asked = self.asked[end + 4 :]
            self.number += 1
            body = page(self.number)
            head = "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.transport.write(head.encode() + body)


async def serve(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Page, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(serve(int(sys.argv[1])))
