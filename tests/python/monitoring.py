# SPDX-License-Identifier: AGPL-3.0-or-later
"""The files of examples/monitoring with a real Prometheus that scrapes a running suite. Arguments: the directory of the suite's programs, and
that of Prometheus and promtool."""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

from suite import PATIENCE, configure, free_ports, until, until_open

PROGRAMS, PROMETHEUS = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
FILES = pathlib.Path(__file__).resolve().parents[2] / "examples" / "monitoring"
# Nothing of the kind happens here, so there is no such series.
WITHOUT_SERIES = {
    "Backend errors a second",
    "Dropped messages a second",
    "Warnings a second",
    "Time until backends answer",
}


def promtool(*arguments):
    subprocess.run([PROMETHEUS / "promtool", *arguments], cwd=FILES, check=True, stdout=subprocess.DEVNULL)


def ask(port, path, **query):
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["data"]


def is_ready(port):
    with contextlib.suppress(urllib.error.HTTPError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=PATIENCE).status == 200


def publish(port, text):
    item = {"channel": "test", "formats": {"http-stream": {"content": text}}}
    body = json.dumps({"items": [item]}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/publish/", body, timeout=PATIENCE).read()


@contextlib.contextmanager
def running(directory, *command):
    with open(directory / f"{pathlib.Path(command[0]).name}.out", "w") as out:
        process = subprocess.Popen(command, cwd=directory, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def watch(directory):
    http, control, scraped, asked = free_ports(4)
    configure(directory, http, control, "* test", f"prometheus_port=127.0.0.1:{scraped}")
    shutil.copy(FILES / "alerts.yml", directory)
    (directory / "prometheus.yml").write_text(f"""global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: pushpin
    static_configs: [{{targets: ["127.0.0.1:{scraped}"]}}]
""")
    prometheus = [
        PROMETHEUS / "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{asked}",
    ]
    runner = running(directory, PROGRAMS / "pushpin-runner", f"--config={directory}/pushpin.conf")
    with runner, running(directory, *prometheus):
        for port in (http, control, scraped, asked):
            until_open(port)
        until("Prometheus is ready", lambda: is_ready(asked))
        stream = urllib.request.urlopen(f"http://127.0.0.1:{http}/stream", timeout=PATIENCE)
        stream.readline()
        publish(control, "hello\n")
        assert stream.readline() == b"hello\n"
        until("the stream is seen", lambda: ask(asked, "query", query='pushpin_holds{mode="stream"} == 1')["result"])

        dashboard = json.loads((FILES / "dashboard.json").read_text())
        queries = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
        assert len(queries) > 20
        for title, expression in queries:
            expression = expression.replace("$instance", ".*").replace("$__rate_interval", "5s")
            assert "$" not in expression, (title, expression)
            if title in WITHOUT_SERIES:
                ask(asked, "query", query=expression)
            else:
                until(f"{title} shows something", lambda: ask(asked, "query", query=expression)["result"])

        def rules():
            known = [rule for group in ask(asked, "rules")["groups"] for rule in group["rules"]]
            return known if all(rule["health"] == "ok" for rule in known) else None

        known = until("all alerts have been evaluated", rules)
        # A test of ours compares that page with what is exported.
        names = set(re.findall(r"`(\w+)`", (FILES.parents[1] / "docs" / "metrics.md").read_text()))
        for expression in [rule["query"] for rule in known] + [expression for _, expression in queries]:
            for name in re.findall(r"\bpushpin_(\w+)", expression):
                assert name.removesuffix("_bucket") in names, (name, expression)
        assert len(known) == (FILES / "alerts.yml").read_text().count("- alert:")
        firing = [rule["name"] for rule in known if rule["state"] != "inactive"]
        assert not firing, firing
        return len(queries), len(known)


promtool("check", "rules", "alerts.yml")
promtool("test", "rules", "alerts_test.yml")
with tempfile.TemporaryDirectory() as directory:
    queries, alerts = watch(pathlib.Path(directory))
print(f"Prometheus with {queries} queries of the dashboard and {alerts} alerts: passed")
