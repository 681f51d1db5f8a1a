"""Looks at the page of a node in Chromium, by the WebDriver protocol. See scripts/page."""

import base64
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

from nodes import Nodes, free_ports, until


class Browser:
    """One window."""

    def __init__(self, port, profile):
        self.url = f"http://127.0.0.1:{port}"
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
            "--window-size=1200,1000",
        ]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        body = {"capabilities": {"alwaysMatch": wanted}}
        self.session = f"/session/{self.ask('POST', '/session', body)['sessionId']}"

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def go(self, url):
        self.ask("POST", self.session + "/url", {"url": url})

    def run(self, script):
        return self.ask("POST", self.session + "/execute/sync", {"script": script, "args": []})

    def text(self, selector):
        return self.run(f"return [...document.querySelectorAll({selector!r})].map((it) => it.textContent)")

    def press(self, *keys):
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", self.session + "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def size(self, width, height):
        self.ask("POST", self.session + "/window/rect", {"width": width, "height": height})

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", self.session + "/screenshot")))

    def complaints(self):
        return [entry for entry in self.ask("POST", self.session + "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def close(self):
        self.ask("DELETE", self.session)


def main():
    coracle, directory, pictures = sys.argv[1:4]
    nodes = Nodes(coracle, directory)
    port = free_ports(1)[0]
    admin = nodes.admin

    def write(node, count):
        nodes.load(node, "-t", "set,get", "-n", str(count), "-c", "20")

    def keep(browser, name):
        if pictures:
            os.makedirs(pictures, exist_ok=True)
            browser.picture(os.path.join(pictures, name))

    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    browser = None
    try:
        leader = nodes.start_all()
        watching = next(node for node in admin if node != leader)
        gone = leader

        def ready():
            try:
                return Browser(port, os.path.join(directory, "profile"))
            except urllib.error.URLError:
                return None
        browser = until("the browser is there", ready)
        browser.go(f"http://{admin[watching]}/")
        row = lambda node: browser.text(f"#members tr[data-node='{node}'] td")
        until("the page says that the node serves", lambda: "serves" in browser.text("#state")[0])
        until("the leader leads", lambda: "leads" in row(leader))
        write(watching, 4000)
        until("there is throughput", lambda: re.search(r"[1-9]", browser.text("#commands-text")[0]))
        until("plots are drawn", lambda: browser.run("return document.querySelectorAll('.plot canvas').length") >= 2)
        keep(browser, "page.png")

        nodes.end(gone)
        lost = f"the connection to node {gone} is lost"
        until("the lost connection is told", lambda: any(lost in event for event in browser.text("#events li")))
        until("the members show it", lambda: "lost" in row(gone))
        leader = until("another leads", lambda: next((node for node in admin if node != gone and "leads" in row(node)), None))
        until("the election is told", lambda: sum(" lead" in event for event in browser.text("#events li")) >= 2)

        # The leader's own page tells who lacks what.
        browser.go(f"http://{admin[leader]}/")
        write(leader, 20000)
        until("the dead one is behind", lambda: any("entries" in cell for cell in row(gone)))
        keep(browser, "page-behind.png")
        nodes.start(gone)
        until("it has caught up", lambda: "nothing" in row(gone))
        until("that is told", lambda: any(f"node {gone} has caught up" in event for event in browser.text("#events li")))
        keep(browser, "page-caught-up.png")

        # By keyboard: the first stop leads past everything to the members; each stop is one that can be seen.
        browser.run("document.activeElement.blur(); window.scrollTo(0, 0)")
        browser.press("\ue004")
        first = browser.run("const it = document.activeElement; return [it.textContent, it.getBoundingClientRect().left >= 0]")
        assert first == ["To the members", True], first
        stops = []
        for _ in range(6):
            browser.press("\ue004")
            stops.append(browser.run("const it = document.activeElement; return it.id || it.getAttribute('aria-label') || it.textContent"))
        assert "events" in stops and "metrics" in stops, stops

        # As narrow as a telephone: nothing is wider than the window.
        browser.size(390, 844)
        browser.go(f"http://{admin[leader]}/")
        until("the narrow page is filled", lambda: "leads" in row(leader))
        time.sleep(1)
        # A window without a screen is never as narrow as it is told: what counts is that nothing scrolls to the side.
        widths = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1], f"the page is {widths[0]} wide in a window of {widths[1]}"
        keep(browser, "page-narrow.png")
        complaints = [it for it in browser.complaints() if "net::ERR" not in it["message"]]
        assert not complaints, complaints
        print(f"the page saw the leader, node {gone}, killed, node {leader} elected and node {gone} catch up; "
              "by keyboard, and in a narrow window")
    finally:
        if browser:
            browser.close()
        driver.kill()
        nodes.end_all()


main()
