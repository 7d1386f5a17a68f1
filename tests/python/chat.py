"""django-grip, unchanged, with the suite: a chat by WebSocket-over-HTTP. Argument: the directory of the programs."""

import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import websocket

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = pathlib.Path(sys.argv[1]).resolve()
PATIENCE = 30


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def until_open(port):
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"waited in vain for port {port}"
        time.sleep(0.02)


def chat(port):
    def client(name):
        return websocket.create_connection(f"ws://127.0.0.1:{port}/chat?name={name}", timeout=PATIENCE)

    a, b = client("alice"), client("bob")
    for ws, name in ((a, "alice"), (b, "bob")):
        ws.send("who am i")
        assert ws.recv() == name
    for number in range(50):
        text = f"message {number} \u00fc"
        (a, b)[number % 2].send(text)
        assert (a.recv(), b.recv()) == (text, text)
    a.send_close(1000, b"bye")
    opcode, payload = a.recv_data()
    assert (opcode, payload[:2]) == (websocket.ABNF.OPCODE_CLOSE, b"\x03\xe8"), (opcode, payload)
    b.send("still here")
    assert b.recv() == "still here"
    b.close()


with tempfile.TemporaryDirectory() as directory:
    port, site, publish = free_port(), free_port(), free_port()
    directory = pathlib.Path(directory)
    (directory / "routes").write_text(f"* 127.0.0.1:{site},over_http\n")
    (directory / "pushpin.conf").write_text(f"""[global]
rundir={directory}/run
[runner]
http_port=127.0.0.1:{port}
logdir={directory}/log
[proxy]
routesfile=routes
sig_key=changeme
[handler]
push_in_http_addr=127.0.0.1
push_in_http_port={publish}
push_in_spec=ipc://{directory}/pull
push_in_sub_specs=ipc://{directory}/sub
command_spec=ipc://{directory}/command
""")
    commands = [
        [PROGRAMS / "pushpin-runner", f"--config={directory}/pushpin.conf"],
        [sys.executable, HERE / "site_with_chat.py", str(site), str(publish)],
    ]
    out = open(directory / "out", "w")
    processes = [subprocess.Popen(command, cwd=directory, stdout=out, stderr=out) for command in commands]
    try:
        for waited in (port, site, publish):
            until_open(waited)
        chat(port)
    except BaseException:
        print((directory / "out").read_text()[-6000:], file=sys.stderr)
        raise
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(PATIENCE)
print("chat by WebSocket-over-HTTP, with django-grip: passed")
