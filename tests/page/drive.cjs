// Goes through the page as somebody would who looks for what grows. Its argument is JSON:
// what to do, where the page is, its token, and where screenshots go.

const { ensure, enter, within } = require("./browser.cjs");
const { manyPaths } = require("./many.cjs");

/** What a service is called, and a function in it, in the test of hostile names. */
const HOSTILE = "<img src=x onerror=boom()>";

const frames = (page) => page.locator(".flame .frame");
const text = (locator) => locator.evaluate((it) => it.textContent);

/** A box of the flamegraph by its function. */
const frame = (page, name) => page.locator(`.flame .frame[name=${JSON.stringify(name)}]`).first();

async function open(page, options, path = "/") {
  await page.goto(`http://${options.address}${path}`);
  await enter(page, options.token);
}

/** Nothing is wider than the window. */
async function fits(page) {
  const [inside, outside] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  ensure(inside <= outside, `the page is ${inside} pixels wide in a window of ${outside}`);
}

/** Drags over the chart, from one part of its width to another. */
async function drag(page, from, to) {
  const over = page.locator(".curve .u-over");
  await over.scrollIntoViewIfNeeded();
  const box = await over.boundingBox();
  const y = box.y + box.height / 2;
  await page.mouse.move(box.x + box.width * from, y);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * ((from + to) / 2), y);
  await page.mouse.move(box.x + box.width * to, y);
  await page.mouse.up();
}

const query = (page) => new URL(page.url()).searchParams;

async function theToken(page, options, shot) {
  await page.goto(`http://${options.address}/`);
  await enter(page, "0123456789abcdef");
  await page.getByText("this token is not the right one").waitFor();
  await shot("token");
  await enter(page, options.token);
  await page.locator(".services tbody tr").first().waitFor();
}

async function theList(page, options, shot) {
  const row = page.locator(".services tr", { has: page.getByRole("link", { name: options.service, exact: true }) });
  ensure(/grow/.test(await text(row)), `it does not grow: ${await text(row)}`);
  ensure((await row.locator("polyline").getAttribute("points")).split(" ").length > 3, "no sparkline");
  await shot("services");
  await page.keyboard.press("/");
  await page.keyboard.type("no such");
  await page.getByText("No service has").waitFor();
  await page.keyboard.press("Escape");
  await row.getByRole("link").click();
}

async function theFindings(page) {
  const finding = page.locator(".finding.grows").first();
  await finding.waitFor();
  ensure((await finding.locator("li").count()) > 0, "a finding has no evidence");
  ensure(/grows/.test(await text(finding)), await text(finding));
}

async function theRanges(page, shot) {
  await frames(page).nth(1).waitFor();
  await drag(page, 0.55, 0.95);
  await page.waitForFunction(() => location.search.includes("from="));
  const { from, to } = Object.fromEntries(query(page));
  ensure(Number(from) < Number(to), page.url());
  await shot("range");
  await page.getByRole("button", { name: "Compare with…" }).click();
  await drag(page, 0.1, 0.45);
  await page.getByText("Compared:").waitFor();
  ensure(Number(query(page).get("other_to")) <= Number(to), page.url());
  await shot("compared");
  const link = page.url();
  await page.reload();
  await page.getByText("Compared:").waitFor();
  ensure(page.url() === link, `${page.url()} was ${link}`);
  await page.getByRole("button", { name: "No comparison" }).click();
  // Keys move the range by a window.
  await page.locator(".curve .plot").focus();
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction((before) => new URL(location.href).searchParams.get("to") < before, to);
  await page.getByRole("button", { name: "All that is there" }).click();
  await page.waitForFunction(() => !location.search.includes("from="));
}

async function thePath(page, options, shot) {
  await frame(page, options.grows).click();
  await page.locator(".detail h2", { hasText: options.grows }).waitFor();
  await page.locator(".detail .u-over").waitFor();
  const said = await text(page.locator(".detail"));
  ensure(/from .* to .*B\./.test(said), said);
  ensure(query(page).get("path"), page.url());
  await page.reload();
  await page.locator(".detail h2", { hasText: options.grows }).waitFor();
  await shot("path");
  // Up to its caller, and out of the zoom.
  await page.locator(".flame").focus();
  const zoomed = query(page).get("path");
  const boxes = await frames(page).count();
  await page.keyboard.press("ArrowUp");
  await page.waitForFunction((before) => new URL(location.href).searchParams.get("path") !== before, zoomed);
  await page.keyboard.press("Escape");
  await page.locator(".detail").waitFor({ state: "hidden" });
  ensure((await frames(page).count()) > boxes, "it is zoomed yet");
  await page.locator("#head input").fill(options.grows.toUpperCase());
  const rows = page.locator(".paths tbody tr");
  await page.waitForFunction(() => document.querySelectorAll(".paths tbody tr").length > 0);
  for (const row of await rows.all()) {
    ensure((await text(row)).includes(options.grows), `found ${await text(row)}`);
  }
  await page.goBack();
  await page.locator(".detail").waitFor();
  ensure(query(page).get("path"), page.url());
}

async function desktop(options) {
  await within("desktop", options, async (page, shot) => {
    await theToken(page, options, shot);
    await theList(page, options, shot);
    await theFindings(page);
    await fits(page);
    await shot("service");
    await theRanges(page, shot);
    await thePath(page, options, shot);
    // Out of the search first.
    await page.keyboard.press("Escape");
    await page.keyboard.press("t");
    await page.waitForFunction(() => document.documentElement.dataset.theme === "dark");
    await shot("dark");
  });
}

async function phone(options) {
  await within("phone", { ...options, dark: true }, async (page, shot) => {
    await open(page, options);
    await page.locator(".services tbody tr").first().waitFor();
    await fits(page);
    await shot("phone-services");
    await page.getByRole("link", { name: options.service, exact: true }).tap();
    await frames(page).nth(1).waitFor();
    await fits(page);
    // A tap chooses a window.
    await page.locator(".curve .u-over").tap();
    await page.waitForFunction(() => location.search.includes("from="));
    await shot("phone-service");
  });
}

/** Names are text, wherever they are. */
async function hostile(options) {
  await within("desktop", options, async (page, shot) => {
    await open(page, options);
    await page.getByRole("link", { name: HOSTILE, exact: true }).click();
    await page.locator("h1", { hasText: HOSTILE }).waitFor();
    // The root is called like the service.
    await page.locator(`.flame .frame[name=${JSON.stringify(HOSTILE)}]`).last().click();
    await page.locator(".detail h2", { hasText: HOSTILE }).waitFor();
    await page.locator(".detail .u-over").waitFor();
    await page.locator(".paths", { hasText: HOSTILE }).waitFor();
    await shot("hostile");
    ensure((await page.locator("img").count()) === 0, "a name became an element");
  });
}

/** A service whose call tree has 10,000 paths, which stands for that of the service. */
async function many(options) {
  await within("desktop", options, async (page, shot) => {
    const tree = JSON.stringify(manyPaths(10000));
    await page.route("**/tree?*", (route) => route.fulfill({ contentType: "application/json", body: tree }));
    const path = `/?service=${encodeURIComponent(options.service)}`;
    await open(page, options, path);
    await frames(page).nth(100).waitFor();
    // The token is kept by the tab: this is a page that loads by itself.
    const clock = await threadClock(page);
    const loads = [];
    for (let round = 0; round < 5; round += 1) {
      await page.goto("about:blank");
      const began = Date.now();
      await page.goto(`http://${options.address}${path}`, { waitUntil: "commit" });
      await frames(page).nth(100).waitFor();
      loads.push({ wall: Date.now() - began, processor: await clock() });
    }
    await shot("many");
    const zooms = [];
    for (const index of [40, 0]) {
      const spent = await clock();
      const took = await zoomTime(page, index);
      zooms.push({ wall: took, processor: (await clock()) - spent });
    }
    process.stdout.write(`${JSON.stringify({ loads, zooms })}\n`);
  });
}

/** Tells what the page's main thread has taken of a processor since it was gone to, milliseconds. */
async function threadClock(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  return async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return Math.round(1000 * metrics.find((metric) => metric.name === "ThreadTime").value);
  };
}

/** How long it takes to zoom to a box, until the browser has drawn, milliseconds. */
async function zoomTime(page, index) {
  return page.evaluate(async (number) => {
    const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const began = performance.now();
    const box = document.querySelectorAll(".flame .frame")[number];
    box.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    await drawn();
    return Math.round(performance.now() - began);
  }, index);
}

const SCENES = { desktop, phone, hostile, many };

async function main() {
  const options = JSON.parse(process.argv[2]);
  for (const scene of options.scenes) await SCENES[scene](options);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
});
