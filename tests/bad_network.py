"""Networks that cut, slow down, delay and lose what is sent."""

import contextlib
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator


class TcpProxy:
    """Relays TCP connections to a port of this machine.

    Attributes:
        port: where it listens.
        cut_after: bytes towards the worker after which a connection is reset; None: never. It holds
            once.
        cut_reply_after: the same towards the coordinator.
        bytes_per_second: how fast it relays in each direction; None: at once.
    """

    def __init__(self, target: int) -> None:
        self.cut_after: int | None = None
        self.cut_reply_after: int | None = None
        self.bytes_per_second: float | None = None
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        # What is slow shall look slow.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self.port = self._listener.getsockname()[1]
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                for limit, ends in (("cut_after", (near, far)), ("cut_reply_after", (far, near))):
                    self._threads.append(threading.Thread(target=self._relay, args=(*ends, limit)))
                    self._threads[-1].start()

    def _relay(self, source: socket.socket, target: socket.socket, limit: str) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                if self.bytes_per_second:
                    self._ended.wait(len(data) / self.bytes_per_second)
                passed += len(data)
                at = getattr(self, limit)
                if at is not None and passed >= at:
                    setattr(self, limit, None)
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        for end in (source, target):
            _reset(end)

    def end(self) -> None:
        """End all connections and stop listening."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._sockets:
            _reset(end)
        for thread in self._threads:
            thread.join(5)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def tcp_proxy(target: int) -> Iterator[TcpProxy]:
    """A TCP proxy while the context lasts."""
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.end()


class Cable:
    """Two network namespaces, this one and another, joined by a cable of which each packet passes
    through here.

    Each end is a TUN device; a thread carries packets from one to the other. (`tc netem` does the
    same inside the kernel, where that has it.)

    Attributes:
        plugged: whether packets pass.
        delay: seconds that a packet takes, one way.
        loss: share of the packets that are lost, 0 to 1.
        lost: number of packets lost so far.
    """

    HERE, THERE = "10.213.7.1", "10.213.7.2"

    def __init__(self) -> None:
        self.plugged, self.delay, self.loss, self.lost = True, 0.0, 0.0, 0
        self.namespace = f"syft-{os.getpid()}"
        names = [f"syft{os.getpid() % 100_000}{end}" for end in "ab"]
        self._ends = [_tun(name) for name in names]
        self._wake, self._stop = os.pipe()
        self._random = random.Random(1)
        self._thread = threading.Thread(target=self._carry)
        _run("ip", "netns", "add", self.namespace)
        _run("ip", "link", "set", names[1], "netns", self.namespace)
        inside = ("ip", "netns", "exec", self.namespace)
        for prefix, name, address in (((), names[0], self.HERE), (inside, names[1], self.THERE)):
            _run(*prefix, "ip", "addr", "add", f"{address}/30", "dev", name)
            _run(*prefix, "ip", "link", "set", name, "up")
        self._thread.start()

    def _carry(self) -> None:
        on_the_way: list[tuple[float, int, int, bytes]] = []
        count = 0
        while True:
            left = max(on_the_way[0][0] - time.monotonic(), 0) if on_the_way else None
            ready, _, _ = select.select([*self._ends, self._wake], [], [], left)
            if self._wake in ready:
                return
            for end in ready:
                packet, other = os.read(end, 65_536), self._ends[1 - self._ends.index(end)]
                if not self.plugged or self._random.random() < self.loss:
                    self.lost += 1
                    continue
                count += 1
                heapq.heappush(on_the_way, (time.monotonic() + self.delay, count, other, packet))
            while on_the_way and on_the_way[0][0] <= time.monotonic():
                *_, end, packet = heapq.heappop(on_the_way)
                with contextlib.suppress(OSError):
                    os.write(end, packet)

    def end(self) -> None:
        """Take both ends and the other namespace away."""
        os.close(self._stop)
        self._thread.join(5)
        for number in (*self._ends, self._wake):
            os.close(number)
        _run("ip", "netns", "del", self.namespace)


class Switch:
    """Network namespaces, as machines of their own: each has one address, and a cable to a switch.

    Attributes:
        addresses: name of the machine -> its address.
        namespaces: name of the machine -> its namespace.

    Raises:
        subprocess.CalledProcessError: this machine allows none; `stderr` tells why.
    """

    def __init__(self, *names: str) -> None:
        self.addresses = {name: f"192.0.2.{number}" for number, name in enumerate(names, 10)}
        self.namespaces = {name: f"syft-{os.getpid()}-{name}" for name in names}
        self._hub = f"syft-{os.getpid()}"
        try:
            _run("ip", "netns", "add", self._hub)
            _run("ip", "-n", self._hub, "link", "add", "switch", "type", "bridge")
            _run("ip", "-n", self._hub, "link", "set", "switch", "up")
            for name in names:
                self._add(name)
        except BaseException:
            self.end()
            raise

    def _add(self, name: str) -> None:
        namespace, port = self.namespaces[name], ("ip", "-n", self._hub, "link")
        _run("ip", "netns", "add", namespace)
        _run(*port, "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run(*port, "set", name, "master", "switch", "up")
        _run("ip", "-n", namespace, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        self.plug(name, True)

    def plug(self, name: str, plugged: bool) -> None:
        """Bring the link of a machine up or down."""
        state = "up" if plugged else "down"
        _run("ip", "-n", self.namespaces[name], "link", "set", "eth0", state)

    def end(self) -> None:
        """Take all namespaces away that are there."""
        for namespace in (*self.namespaces.values(), self._hub):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def why_no_cable() -> str:
    """Return why this machine allows no Cable; empty: it does."""
    if not shutil.which("ip"):
        return "no `ip` (Debian's iproute2)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "no /dev/net/tun, or not ours to open"
    tried = subprocess.run(
        ["ip", "netns", "add", f"syft-try-{os.getpid()}"], capture_output=True, text=True
    )
    if tried.returncode:
        return f"no network namespaces: {tried.stderr.strip()}"
    _run("ip", "netns", "del", f"syft-try-{os.getpid()}")
    try:
        os.close(_tun("syfttry"))
    except OSError as error:
        return f"no TUN devices: {error}"
    return ""


def _tun(name: str) -> int:
    """Return the open end of a new TUN device: packets that the kernel sends there are read
    here."""
    TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
    number = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(number, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(number)
        raise
    return number


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)
