"""An RTSP server on this machine that sends numbered frames as H.264 over TCP, as fast as they are taken."""

import contextlib
import re
import socketserver
import struct
import threading

from tests.helpers.drawn.clips import av, numbered

DESCRIPTION = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=frames
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=control:video
""".replace("\n", "\r\n")


def units(first, count, rate=30):
    """(time in units of 1/90000 s, units of H.264) of each frame."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 208, 96, "yuv420p", rate
    encoder.options = {"tune": "zerolatency"}
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(numbered(first + index), format="rgb24")
        for packet in encoder.encode(frame):
            yield index * 90000 // rate, [unit for unit in re.split(b"\0\0\0?\1", bytes(packet)) if unit]


class Session(socketserver.StreamRequestHandler):
    """Answers a client; when it plays, sends the next part of the frames, and closes the connection."""

    parts, transports = [], []

    def handle(self):
        while request := self._request():
            method, fields = request
            answer, content = {"CSeq": fields["cseq"]}, ""
            if method == "DESCRIBE":
                answer["Content-Type"], content = "application/sdp", DESCRIPTION
            elif method == "SETUP":
                self.transports.append(fields["transport"])
                answer["Transport"] = fields["transport"]
            if method in ("SETUP", "PLAY"):
                answer["Session"] = "1"
            if method == "PLAY" and not self.parts:
                return
            head = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
            self.wfile.write(f"RTSP/1.0 200 OK\r\n{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
            if method == "PLAY":
                self._play(*self.parts.pop(0))
                return

    def _request(self):
        lines = []
        while (line := self.rfile.readline().decode().strip()) or not lines:
            if not line:
                return None
            lines.append(line)
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        fields["transport"] = next((line[11:] for line in lines if line.startswith("Transport: ")), "")
        return lines[0].split()[0], fields

    def _play(self, first, count):
        number = 0
        for moment, frame in units(first, count):
            for unit in frame:
                last = 128 if unit is frame[-1] else 0
                packet = struct.pack(">BBHII", 128, 96 + last, number, moment, 1) + unit
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                number += 1


@contextlib.contextmanager
def rtsp(parts):
    """An address; each client that plays gets the next (first number, count) of `parts`, and none when all are sent.

    Yields:
        The address, and a list of the transports that clients ask for.
    """
    handler = type("OneServer", (Session,), {"parts": list(parts), "transports": []})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/door", handler.transports
        finally:
            server.shutdown()
            thread.join()
