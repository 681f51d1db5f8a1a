"use strict";
// Shows what /live tells. Whatever comes from a node is put in as text, never as markup.
(() => {
  const KEPT = 300;
  const byId = (id) => document.getElementById(id);
  const seconds = [];
  let last = 0;

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const number = (value) => value.toLocaleString("en");
  const bytes = (value) => value < 1 << 20 ? `${number(Math.round(value / 1024))} KiB` : `${(value / (1 << 20)).toFixed(1)} MiB`;
  const ms = (value) => value == null ? "–" : value < 10 ? `${value.toFixed(2)} ms` : `${Math.round(value)} ms`;

  // ---- plots

  const ink = () => getComputedStyle(document.body).getPropertyValue("--soft").trim() || "#57606a";
  const line = () => getComputedStyle(document.body).getPropertyValue("--line").trim() || "#d0d7de";
  const COLOURS = ["#0969da", "#bf3989", "#1a7f37", "#9a6700", "#8250df", "#cf222e", "#57606a", "#0550ae", "#953800"];
  const plots = {};

  const plot = (id, series, log) => {
    const place = byId(id);
    const names = series.map((one) => one.label).join("|");
    const data = [seconds.map((second) => second.time), ...series.map((one) => seconds.map(one.value))];
    const known = plots[id];
    if (known && known.names === names) {
      known.plot.setData(data);
      return;
    }
    if (known) known.plot.destroy();
    const axis = { stroke: ink(), grid: { stroke: line() }, ticks: { stroke: line() } };
    const options = {
      width: place.clientWidth || 300,
      height: 200,
      scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1)] } },
      axes: [axis, { ...axis, size: 64 }],
      legend: { live: true },
      cursor: { drag: { x: false, y: false } },
      series: [{ label: "time" }, ...series.map((one, at) => ({ label: one.label, stroke: COLOURS[at % COLOURS.length], width: 1.5, dash: one.dash, spanGaps: false, value: (_, value) => value == null ? "–" : one.shows(value) }))],
    };
    plots[id] = { names, plot: new uPlot(options, data, place) };
  };
  new ResizeObserver(() => {
    for (const [id, { plot }] of Object.entries(plots)) plot.setSize({ width: byId(id).clientWidth, height: 200 });
  }).observe(document.body);

  const took = (of, what) => (second) => second[of] ? second[of][what] : null;
  const draw = () => {
    if (seconds.length === 0) return;
    const now = seconds[seconds.length - 1];
    plot("commands", [
      { label: "commands", value: (second) => second.commands, shows: (value) => number(Math.round(value)) },
      { label: "entries committed", value: (second) => second.entries, shows: (value) => number(Math.round(value)), dash: [6, 3] },
    ]);
    byId("commands-text").textContent = `${number(Math.round(now.commands))} commands and ${number(Math.round(now.entries))} entries in the last second`;
    plot("latency", [
      { label: "writes", value: took("write", "mean"), shows: ms },
      { label: "99 of 100 writes", value: took("write", "most"), shows: ms, dash: [6, 3] },
      { label: "reads", value: took("read", "mean"), shows: ms },
      { label: "the log's disk", value: took("log", "mean"), shows: ms, dash: [2, 2] },
    ]);
    const of = (name, one) => `${name} ${one ? ms(one.mean) : "none"}`;
    byId("latency-text").textContent = `In the last second, on average: ${of("writes", now.write)}, ${of("reads", now.read)}, ${of("the log's disk", now.log)}`;
    const peers = Object.keys(now.lag);
    byId("lag-section").hidden = peers.length === 0;
    if (peers.length > 0) {
      plot("lag", peers.map((id) => ({ label: `node ${id}`, value: (second) => second.lag[id] ?? null, shows: number })));
      byId("lag-text").textContent = peers.map((id) => `node ${id}: ${number(now.lag[id])}`).join(", ");
    }
  };

  // ---- words

  const state = (text, kind) => {
    const place = byId("state");
    if (place.textContent !== text) place.textContent = text;
    place.className = kind;
  };

  const members = (report) => {
    const rows = report.members.map((member) => {
      const row = document.createElement("tr");
      row.dataset.node = member.id;
      const peer = report.peers.find((one) => one.id === member.id);
      const leads = member.id === report.leader;
      const head = element("th", member.id === report.id ? `${member.id} (this one)` : `${member.id}`);
      head.scope = "row";
      const connected = member.reachable ? (member.encrypted ? "encrypted" : "connected") : "lost";
      const behind = member.id === report.id ? "" : peer ? (peer.lag === 0 ? "nothing" : `${number(peer.lag)} entries`) : "";
      const silent = peer ? (peer.silent_ms < 1000 ? "now" : `${Math.round(peer.silent_ms / 1000)} s ago`) : "";
      row.append(
        head,
        element("td", member.address),
        element("td", leads ? "leads" : member.voter ? "votes" : "learns"),
        element("td", member.id === report.id ? "" : connected, member.id === report.id || member.reachable ? "" : "bad"),
        element("td", behind),
        element("td", silent, peer && peer.silent_ms >= 2000 ? "bad" : ""),
      );
      return row;
    });
    byId("members").tBodies[0].replaceChildren(...rows);
    byId("members-note").textContent = report.leader === report.id || report.leader == null ? "" :
      `Only the leader, node ${report.leader}, knows how far the others are: its own page shows it.`;
  };

  const log = (report) => {
    const rows = [
      ["committed", `${number(report.commit)} of ${number(report.last_index)}`],
      ["applied", number(report.applied)],
      ["begins at", number(report.first_index)],
      ["on disk", report.disk_bytes > 0 ? bytes(report.disk_bytes) : "in memory alone"],
      ["snapshot", report.snapshot ? `up to ${number(report.snapshot.index)}, ${bytes(report.snapshot.bytes)}` : "none yet"],
    ];
    if (report.taking_snapshot) rows.push(["", "another one is being taken"]);
    for (const one of report.sending_snapshots) rows.push(["sent to node " + one.peer, `${bytes(one.done)} of ${bytes(one.bytes)}`]);
    if (report.receiving_snapshot) rows.push(["comes from node " + report.receiving_snapshot.peer, `${bytes(report.receiving_snapshot.done)} of ${bytes(report.receiving_snapshot.bytes)}`]);
    byId("log").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  };

  const happened = (happening) => {
    const item = document.createElement("li");
    const time = element("time", new Date(happening.time * 1000).toLocaleTimeString("en-GB"));
    time.dateTime = new Date(happening.time * 1000).toISOString();
    item.append(time, document.createTextNode(happening.what));
    byId("events").prepend(item);
    while (byId("events").children.length > 100) byId("events").lastChild.remove();
  };

  // ---- what comes

  const live = new EventSource("live");
  live.onmessage = (event) => {
    const news = JSON.parse(event.data);
    const newest = Number(event.lastEventId);
    if (newest < last) {
      // The server was started anew.
      seconds.length = 0;
      byId("events").replaceChildren();
    }
    last = newest;
    seconds.push(...news.seconds);
    seconds.splice(0, Math.max(0, seconds.length - KEPT));
    news.happenings.forEach(happened);
    const report = news.report;
    if (report) {
      byId("who").textContent = `node ${report.id}`;
      document.title = `Coracle, node ${report.id}: ${report.role}`;
      if (news.unready.length > 0) state(`${report.role}, term ${report.term}; cannot serve: ${news.unready.join("; ")}`, "bad");
      else state(`${report.role}, term ${report.term}; serves`, "good");
      members(report);
      log(report);
    }
    draw();
  };
  let lost = null;
  live.onerror = () => {
    // Each answer ends after a while, and is asked for again: that is no trouble until nobody answers.
    lost ??= setTimeout(() => state("this node does not answer", "bad"), 3000);
  };
  live.onopen = () => {
    clearTimeout(lost);
    lost = null;
  };
})();
