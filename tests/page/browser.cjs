// A headless Chromium on the page, and all that it complains of.

const { chromium } = require("playwright-core");

const CHROMIUM = "/usr/bin/chromium";
// It asks nothing of the network by itself, and draws without a graphics card.
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const SIZES = {
  desktop: { width: 1280, height: 900 },
  phone: { width: 390, height: 844 },
};

function ensure(holds, message) {
  if (!holds) throw new Error(message);
}

/** Does `act` with a page of a size; fails if anything was wrong with the page meanwhile. */
async function within(size, options, act) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  try {
    const isPhone = size === "phone";
    const context = await browser.newContext({
      viewport: SIZES[size],
      hasTouch: isPhone,
      isMobile: isPhone,
      deviceScaleFactor: isPhone ? 2 : 1,
      colorScheme: options.dark ? "dark" : "light",
    });
    const page = await context.newPage();
    page.setDefaultTimeout(60000);
    const complaints = await watch(page, options.address);
    const shot = async (name) => {
      if (options.shots) await page.screenshot({ path: `${options.shots}/${name}.png`, fullPage: true });
    };
    try {
      await act(page, shot);
    } catch (error) {
      await shot(`failed-${size}`);
      throw new Error(`${error.stack}\n${complaints.join("\n")}`);
    }
    complaints.push(...(await page.evaluate(() => window.violations)));
    ensure(complaints.length === 0, `the page: ${complaints.join("\n")}`);
  } finally {
    await browser.close();
  }
}

/** What goes wrong in a page from now on. */
async function watch(page, address) {
  const complaints = [];
  // The browser says so of each answer that is a refusal; those are wanted here.
  const isRefusal = (text) => /status of (401|404)/.test(text);
  page.on("console", (message) => {
    const wanted = ["error", "warning"].includes(message.type()) && !isRefusal(message.text());
    if (wanted) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`error: ${error.stack}`));
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`http://${address}/`) && !url.startsWith("data:")) {
      complaints.push(`request: ${url}`);
    }
  });
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
    });
  });
  return complaints;
}

/** Enters the token. */
async function enter(page, token) {
  await page.locator("#token").fill(token);
  await page.getByRole("button", { name: "Enter" }).click();
}

module.exports = { ensure, enter, within };
