// The page is whole without this: it adds looking closer, looking up and finding. All text goes in as text.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const drawn = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Words.
  const hex = (number) => "0x" + number.toString(16);
  const bytes = (size) => {
    for (const [unit, of] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]])
      if (size >= of) return `${+(size / of).toFixed(size % of ? 1 : 0)} ${unit}`;
    return `${size} bytes`;
  };
  const time = (ns) => {
    for (const [unit, of] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]])
      if (Math.abs(ns) >= of) return `${+(ns / of).toFixed(3)} ${unit}`;
    return `${Math.round(ns)} ns`;
  };

  // A horizontal axis that can be zoomed and moved: what the memory map and the timeline have in common.
  const strip = (figure, whole, least, words, draw) => {
    const [overview, plot] = [figure.querySelector(".overview"), figure.querySelector(".plot")];
    const range = figure.querySelector(".range");
    let view = [...whole];
    const redraw = () => {
      const width = plot.clientWidth;
      if (!width) return;
      const scale = ([from, to]) => (value) => ((value - from) / (to - from)) * width;
      plot.replaceChildren();
      overview.replaceChildren();
      draw(plot, scale(view), view, width, false);
      draw(overview, scale(whole), whole, width, true);
      const [left, right] = view.map(scale(whole));
      if (right - left < width - 1)
        overview.append(drawn("rect", { class: "window", x: left, y: 1, width: Math.max(right - left, 3), height: 12 }));
      range.textContent = words(view);
    };
    const show = (from, to) => {
      const size = Math.min(Math.max(to - from, least), whole[1] - whole[0]);
      const middle = (from + to) / 2;
      const start = Math.min(Math.max(middle - size / 2, whole[0]), whole[1] - size);
      view = [start, start + size];
      redraw();
    };
    const zoom = (factor, at = (view[0] + view[1]) / 2) => {
      const share = (at - view[0]) / (view[1] - view[0]);
      const size = Math.min(Math.max((view[1] - view[0]) * factor, least), whole[1] - whole[0]);
      show(at - share * size, at + (1 - share) * size);
    };
    const move = (share) => { const by = (view[1] - view[0]) * share; show(view[0] + by, view[1] + by); };
    const deeds = { in: () => zoom(0.5), out: () => zoom(2), left: () => move(-0.25), right: () => move(0.25), whole: () => show(...whole) };
    const keys = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", 0: "whole", Home: "whole", ",": "previous", ".": "next" };
    figure.addEventListener("click", (event) => deeds[event.target.dataset?.do]?.());
    plot.addEventListener("keydown", (event) => {
      const deed = !event.ctrlKey && !event.metaKey && !event.altKey && deeds[keys[event.key]];
      if (deed) { event.preventDefault(); deed(); }
    });
    const at = (event) => {
      const box = plot.getBoundingClientRect();
      return view[0] + ((event.clientX - box.left) / box.width) * (view[1] - view[0]);
    };
    plot.addEventListener("wheel", (event) => {
      // A plain wheel scrolls the page, as everywhere.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 0.8 : 1.25, at(event));
    }, { passive: false });
    plot.addEventListener("dblclick", (event) => zoom(0.4, at(event)));
    let grabbed = null;
    plot.addEventListener("pointerdown", (event) => { grabbed = { x: event.clientX, view: [...view] }; });
    plot.addEventListener("pointermove", (event) => {
      if (!grabbed || !event.buttons || Math.abs(event.clientX - grabbed.x) < 4) return;
      const by = ((event.clientX - grabbed.x) / plot.clientWidth) * (grabbed.view[1] - grabbed.view[0]);
      show(grabbed.view[0] - by, grabbed.view[1] - by);
    });
    addEventListener("pointerup", () => { grabbed = null; });
    new ResizeObserver(redraw).observe(plot);
    redraw();
    return { show, redraw, deeds, view: () => view };
  };
  const LETTER = 6.7; // Width of a letter of the drawings' font, in pixels.
  const box = (plot, scale, width, from, to, y, height, kind, name) => {
    const [left, right] = [Math.max(scale(from), 0), Math.min(scale(to), width)];
    if (right < 0 || left > width) return null;
    const made = drawn("rect", { class: right - left < 4 ? `box thin ${kind}` : `box ${kind}`, x: left, y, width: Math.max(right - left, 1.5), height });
    plot.append(made);
    if (name && right - left > name.length * LETTER + 8)
      plot.append(drawn("text", { x: left + 5, y: y + height / 2 + 4 }, name));
    return made;
  };
  const ticks = (plot, scale, view, width, step, name, y) => {
    for (let at = Math.ceil(view[0] / step) * step; at <= view[1]; at += step) {
      const [x, text] = [scale(at), name(at)];
      plot.append(drawn("line", { class: "tick", x1: x, x2: x, y1: 0, y2: y }));
      if (x + text.length * LETTER + 4 < width) plot.append(drawn("text", { class: "tick-name", x: x + 2, y: y + 12 }, text));
    }
  };

  // Guest memory.
  const places = all("#map tbody tr").map((row) => ({
    row, name: row.dataset.name, kind: row.dataset.kind, hva: row.dataset.hva, rights: row.dataset.rights,
    start: Number(row.dataset.start), end: Number(row.dataset.start) + Number(row.dataset.size),
  }));
  const regions = places.filter(({ row }) => row.dataset.drawn !== "no");
  let chosen = null;
  const memory = regions.length && strip(byId("map-strip"),
    [Math.min(...regions.map((region) => region.start)), Math.max(...regions.map((region) => region.end))], 0x1000,
    ([from, to]) => `${hex(Math.floor(from))} to ${hex(Math.ceil(to))}: ${bytes(Math.round(to - from))}`,
    (plot, scale, view, width, small) => {
      if (!small) {
        const wanted = (view[1] - view[0]) / Math.max(width / 110, 1);
        ticks(plot, scale, view, width, 2 ** Math.ceil(Math.log2(wanted)), hex, 88);
      }
      for (const region of regions) {
        const made = box(plot, scale, width, region.start, region.end, small ? 2 : 8, small ? 10 : 72, region.kind, small ? "" : region.name);
        if (!made || small) continue;
        made.append(drawn("title", {}, `${region.name}: ${hex(region.start)} to ${hex(region.end)}`));
        if (region === chosen) made.classList.add("chosen");
        made.addEventListener("click", () => choose(region, false));
      }
    });
  // At first, what is not just free memory: on a machine of 64 GiB all else would be too small to see.
  const used = regions.filter((region) => region.kind !== "free" && region.kind !== "hole").map((region) => region.end);
  if (used.length && Math.max(...used) * 2 < Math.max(...regions.map((region) => region.end)))
    memory.show(0, Math.max(...used) * 1.15);
  const choose = (region, zooms) => {
    chosen = region;
    const detail = byId("map-strip").querySelector(".detail");
    detail.replaceChildren(element("b", region.name),
      ` ${hex(region.start)} to ${hex(region.end)}, ${bytes(region.end - region.start)}, ${region.rights}`,
      region.hva ? `; the host has it at ${region.hva}` : "");
    const around = (region.end - region.start) * 0.75;
    if (zooms) memory.show(region.start - around, region.end + around); else memory.redraw();
  };
  for (const region of regions)
    region.row.querySelector("button").addEventListener("click", () => {
      choose(region, true);
      byId("map").scrollIntoView({ block: "start" });
    });

  // The timeline: a row for the spans that the guest has named, one for each kind of exit, one for log records.
  const run = JSON.parse(byId("data").textContent).timeline;
  const COLOURS = { "pio-out": "e-out", "pio-in": "e-in", hypercall: "e-call", "mmio-read": "e-mmio", "mmio-write": "e-mmio", halt: "e-halt", interrupted: "e-halt", "ioapic-eoi": "e-halt" };
  const lanes = run.kinds.map((kind) => ({ name: kind, class: COLOURS[kind] ?? "e-end" }));
  const exits = run.exits.map(([id, start, took, lane, site], number) => ({
    start, took, lane, number, text: `Exit ${id}: ${run.sites[site] ?? "of a place that was not kept"}`,
  }));
  // Where the middle was left out: the number of the exit behind it makes a jump.
  const jump = run.exits.findIndex(([id], number) => number > 0 && id !== run.exits[number - 1][0] + 1);
  const [last, firstOfEnd] = [exits[jump - 1], exits[jump]];
  const extra = (name, kind, list) => {
    if (!list.length) return;
    list.forEach((one) => exits.push({ ...one, lane: lanes.length }));
    lanes.push({ name, class: kind });
  };
  // Spans lie in each other: a row for each depth, as far as there is room.
  const spans = run.spans.map((span) => ({
    start: span.start_ns, took: (span.end_ns ?? run.end_ns) - span.start_ns, text: `Span ${span.name}`, name: span.name, depth: Math.min(span.depth, 5),
  }));
  for (let depth = 0; depth <= 5; depth += 1)
    extra(depth ? "" : "spans", "span", spans.filter((span) => span.depth === depth));
  extra("log", "data", run.log.map(([start, text]) => ({ start, took: 0, text })));
  exits.sort((one, other) => one.start - other.start || other.took - one.took);
  exits.forEach((one, number) => { one.number = number; });
  const LANE = 22;
  const end = Math.max(run.end_ns, 1);
  let exit = null;
  const timePlot = byId("time-strip").querySelector(".plot");
  timePlot.setAttribute("height", (lanes.length + 1) * LANE + 26);
  const timeline = strip(byId("time-strip"), [0, end], Math.min(1000, end),
    ([from, to]) => `${time(from)} to ${time(to)}`,
    (plot, scale, view, width, small) => {
      const height = small ? 14 : lanes.length * LANE;
      plot.append(drawn("rect", { class: "back", x: 0, y: 0, width, height }));
      if (!small) {
        const wanted = (view[1] - view[0]) / Math.max(width / 100, 1);
        const power = 10 ** Math.floor(Math.log10(wanted));
        ticks(plot, scale, view, width, power * [1, 2, 5, 10].find((factor) => factor * power >= wanted), time, height + 2);
      }
      if (run.left_out && last) {
        const gap = [last.start + last.took, firstOfEnd.start].map(scale);
        plot.append(drawn("rect", { class: "gap", x: gap[0], y: 0, width: Math.max(gap[1] - gap[0], 1), height }));
        if (!small && gap[1] - gap[0] > 120) plot.append(drawn("text", { x: gap[0] + 5, y: 15 }, `${run.left_out} left out`));
      }
      // Marks that fall on the same pixel of a lane are one rectangle, so a drawing never has more than fit.
      const drawnTo = lanes.map(() => -1);
      for (const one of exits) {
        if (one.start + one.took < view[0] || one.start > view[1]) continue;
        const [left, right] = [scale(one.start), scale(one.start + one.took)];
        if (right < drawnTo[one.lane] && one !== exit && one.depth === undefined) continue;
        drawnTo[one.lane] = Math.max(right, left + 1);
        const made = box(plot, scale, width, one.start, one.start + one.took,
          small ? 2 : one.lane * LANE + 3, small ? 10 : LANE - 6, lanes[one.lane].class, small ? "" : one.name);
        if (!made || small) continue;
        if (one === exit) made.classList.add("chosen");
        made.addEventListener("click", () => chooseExit(one, false));
      }
      if (!small) lanes.forEach((lane, number) =>
        plot.append(drawn("text", { class: "lane", x: 4, y: number * LANE + 15 }, lane.name)));
    });
  const chooseExit = (one, moves) => {
    exit = one;
    byId("time-strip").querySelector(".detail").replaceChildren(
      element("b", `${lanes[one.lane].name}`), ` at ${time(one.start)}, ${time(one.took)} long. ${one.text}`);
    const [from, to] = timeline.view();
    if (moves && (one.start < from || one.start + one.took > to)) {
      const half = Math.max((to - from) / 2, one.took);
      timeline.show(one.start + one.took / 2 - half, one.start + one.took / 2 + half);
    } else timeline.redraw();
  };
  const step = (by) => {
    const next = exits[exit ? exit.number + by : by > 0 ? 0 : exits.length - 1];
    if (next) chooseExit(next, true);
  };
  timeline.deeds.next = () => step(1);
  timeline.deeds.previous = () => step(-1);

  // The tree of page tables.
  byId("unfold").addEventListener("click", () => all("#tables details").forEach((table) => { table.open = true; }));
  byId("fold").addEventListener("click", () => all("#tables details").forEach((table) => { table.open = false; }));

  // What lies at an address.
  const address = (text) => (/^0x_*[0-9a-f][0-9a-f_]{0,30}$/i.test(text) ? BigInt(text.replaceAll("_", "")) : null);
  const within = (at, start, size) => at >= BigInt(start) && at < BigInt(start) + BigInt(size);
  const lookUp = (at) => {
    const facts = [];
    for (const { row, name, hva, rights } of places)
      if (within(at, row.dataset.start, row.dataset.size)) {
        const offset = at - BigInt(row.dataset.start);
        facts.push(["As a GPA", `${name}, ${hex(offset)} into it, ${rights}`]);
        if (/^0x/.test(hva)) facts.push(["The host has it at", `HVA ${hex(BigInt(hva) + offset)}`]);
      }
    for (const { dataset, textContent } of all("#tables .leaf"))
      if (dataset.bytes !== "0" && within(at, dataset.gva, dataset.bytes))
        facts.push(["As a GVA", `leads to GPA ${hex(BigInt(dataset.gpa) + at - BigInt(dataset.gva))}: ${textContent.trim()}`]);
    for (const { dataset, firstElementChild } of all("#tables details"))
      if (dataset.table && within(at, dataset.table, 4096))
        facts.push(["A page table", `entry ${(at - BigInt(dataset.table)) / 8n} of the table that ${firstElementChild.firstElementChild.textContent} leads to`]);
    for (const row of all("#registers tbody tr"))
      for (const [cell, when] of [[1, "at start"], [2, "at the end"]]) {
        const value = address(row.children[cell].textContent.trim());
        if (value !== null && value === at) facts.push(["In a register", `${row.children[0].textContent} ${when}`]);
      }
    return facts;
  };
  const tell = (at) => {
    const found = byId("found");
    found.hidden = at === null;
    if (at === null) return;
    const [list, facts] = [element("dl"), lookUp(at)];
    for (const [name, value] of facts.length ? facts : [["Nothing", "no region, page or register of this report has it"]]) {
      const row = element("div");
      row.append(element("dt", name), element("dd", value));
      list.append(row);
    }
    found.replaceChildren(element("h2", `What lies at ${hex(at)}`), list);
    const region = regions.find(({ row }) => within(at, row.dataset.start, row.dataset.size));
    if (region) choose(region, true);
  };

  // Finding: rows without the words go away, tables with them unfold.
  const rows = all("[data-row]");
  const wasOpen = new Map(all("details").map((details) => [details, details.open]));
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const mark = (words) => {
    if (!window.Highlight) return;
    const ranges = [];
    const walker = words && document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
    while (walker && walker.nextNode() && ranges.length < 2000) {
      const text = walker.currentNode.data.toLowerCase();
      for (let at = text.indexOf(words); at >= 0 && ranges.length < 2000; at = text.indexOf(words, at + words.length)) {
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, Math.min(at + words.length, walker.currentNode.length));
        ranges.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };
  const find = () => {
    const words = byId("query").value.trim().toLowerCase();
    const at = address(words);
    let count = 0;
    for (const row of rows) {
      const has = words !== "" && texts.get(row).includes(words);
      const isBranch = row.tagName === "DETAILS";
      // An address is looked up; nothing goes away for it.
      row.classList.toggle("away", words !== "" && at === null && !has);
      if (has && !isBranch) count += 1;
    }
    for (const [details, open] of wasOpen) details.open = words === "" ? open : texts.get(details)?.includes(words) || open;
    byId("count").textContent = words === "" ? "" : at !== null ? "looked up" : count === 1 ? "1 place" : `${count} places`;
    tell(at);
    mark(words);
  };
  let waiting = 0;
  byId("query").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(find, 60); });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    find();
    const words = byId("query").value.trim().toLowerCase();
    const first = rows.find((row) => texts.get(row).includes(words) && row.offsetParent && !row.closest("header"));
    (byId("found").hidden ? first : byId("found"))?.scrollIntoView({ block: "center" });
  });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      byId("query").focus();
    } else if (event.key === "Escape" && byId("query").value) {
      byId("query").value = "";
      find();
    }
  });
})();
