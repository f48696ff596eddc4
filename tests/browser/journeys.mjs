// Sign-in as a user does it: page/index.html in Chromium, with supabase-js, against a running node.
//
// tests/tests/suite/browser.rs starts the node and this; it gives
//   NTIER_URL        the page, on the name `localhost`: passkeys are bound to names
//   NTIER_SECRET_KEY
//   ISSUER           the address of the OpenID provider, whose listening socket is standard input
//   SCREENSHOTS      a folder, for failures

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

import { serve } from "./provider.mjs";
import { STEP, code } from "./totp.mjs";

const { NTIER_URL, NTIER_SECRET_KEY, ISSUER, SCREENSHOTS } = process.env;
/** Milliseconds: longer than one step takes on a slow machine, and than a journey does. */
const [STEP_PATIENCE, PATIENCE] = [30_000, 90_000];

let browser, provider;

before(async () => {
  provider = await serve({ issuer: ISSUER, socket: 0, client_id: "ntier", client_secret: "for tests only" });
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
      // The provider's pages ask for a font from elsewhere.
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    ],
  });
});

after(async () => {
  await browser?.close();
  provider?.close();
  provider?.closeAllConnections();
});

journey("a sign-up is confirmed by mail", async (page) => {
  await fill(page, { "E-mail": "new@example.com", "Password": "a first password" });
  await click(page, "Sign up");
  await says(page, "Look at your mail");
  await follow(page, "new@example.com", "Confirm your mail");
  await shows(page, { "E-mail": "new@example.com", "Provider": "email", "Level": "aal1" });
});

journey("a password that was forgotten is replaced", async (page) => {
  const [email, before, now] = ["forgetful@example.com", "the one before", "the one from now on"];
  await user(email, before);
  await fill(page, { "E-mail": email });
  await click(page, "Forgot password");
  await says(page, "Look at your mail");
  await follow(page, email, "Reset Password");
  await says(page, "Choose a new password");
  await fill(page, { "New password": now });
  await click(page, "Change password");
  await says(page, "The password is changed");
  await click(page, "Sign out");
  await says(page, "Signed out");
  await fill(page, { "E-mail": email, "Password": before });
  await click(page, "Sign in");
  await refuses(page, "invalid_credentials");
  await fill(page, { "Password": now });
  await click(page, "Sign in");
  await shows(page, { "E-mail": email, "By": "password" });
});

journey("an OpenID provider says who comes", async (page) => {
  const come = async () => {
    await click(page, "Sign in with the provider");
    await page.waitForURL(`${ISSUER}/**`);
  };
  await come();
  await page.getByPlaceholder("Enter any login").fill("visitor");
  await page.getByPlaceholder("and password").fill("any");
  await click(page, "Sign-in");
  await click(page, "Continue");
  await page.waitForURL(`${NTIER_URL}/**`);
  await shows(page, { "E-mail": "visitor@provider.example", "Provider": "house", "By": "oauth" });
  await click(page, "Sign out");
  await says(page, "Signed out");
  // Whoever does not want to comes back without a session.
  await page.context().clearCookies();
  await come();
  await page.getByText("Cancel").click();
  await page.waitForURL(`${NTIER_URL}/**`);
  await refuses(page, "aborted");
});

journey("an authenticator app is the second factor", async (page) => {
  const [email, password] = ["careful@example.com", "a password and a code"];
  await user(email, password);
  await fill(page, { "E-mail": email, "Password": password });
  await click(page, "Sign in");
  await shows(page, { "Level": "aal1" });
  await click(page, "Add an authenticator app");
  const picture = page.getByAltText("QR code");
  await picture.waitFor();
  const [width] = await picture.evaluate((image) => image.decode().then(() => [image.naturalWidth]));
  assert.ok(width >= 200, `the picture is ${width} wide`);
  const secret = await page.locator("figure code").textContent();
  const enrolled = Date.now();
  await fill(page, { "Code": code(secret, enrolled) });
  await click(page, "Verify");
  await shows(page, { "Level": "aal2", "By": "password totp" });
  await click(page, "Sign out");
  await says(page, "Signed out");

  await fill(page, { "E-mail": email, "Password": password });
  await click(page, "Sign in");
  // A code is taken once.
  await fill(page, { "Code": code(secret, enrolled) });
  assert.ok(await page.getByRole("button", { name: "Sign out" }).isHidden(), "it is in without a code");
  await click(page, "Verify");
  await refuses(page, "mfa_verification_failed");
  // The next one is good already: clocks differ.
  await fill(page, { "Code": code(secret, enrolled + STEP) });
  await click(page, "Verify");
  await shows(page, { "E-mail": email, "Level": "aal2", "By": "password totp" });
});

journey("a passkey signs in without a name", async (page) => {
  const [email, password] = ["keyholder@example.com", "soon not needed"];
  await user(email, password);
  const authenticator = await page.context().newCDPSession(page);
  await authenticator.send("WebAuthn.enable");
  const { authenticatorId } = await authenticator.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2", transport: "internal",
      hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true,
    },
  });
  await fill(page, { "E-mail": email, "Password": password });
  await click(page, "Sign in");
  await shows(page, { "By": "password" });
  await click(page, "Add a passkey");
  await says(page, "Passkeys: 1");
  const { credentials } = await authenticator.send("WebAuthn.getCredentials", { authenticatorId });
  assert.deepEqual(credentials.map(({ rpId, isResidentCredential }) => [rpId, isResidentCredential]), [["localhost", true]]);
  await click(page, "Sign out");
  await says(page, "Signed out");
  await click(page, "Sign in with a passkey");
  await shows(page, { "E-mail": email, "By": "passkey" });
});

/** A test with a browser's profile of its own; when it fails, says what the page showed. */
function journey(name, steps) {
  test(name, { timeout: PATIENCE }, async () => {
    const context = await browser.newContext();
    context.setDefaultTimeout(STEP_PATIENCE);
    const page = await context.newPage();
    const seen = [];
    page.on("console", (message) => seen.push(`console: ${message.text()}`));
    page.on("pageerror", (error) => seen.push(`page: ${error}`));
    page.on("response", (response) => seen.push(`${response.status()} ${response.request().method()} ${response.url()}`));
    try {
      await page.goto(NTIER_URL);
      await steps(page);
    } catch (failure) {
      const picture = join(SCREENSHOTS, `ntier-browser-${process.pid}-${name.replaceAll(" ", "-")}.png`);
      await page.screenshot({ path: picture }).catch(() => {});
      const text = await page.innerText("body", { timeout: 1000 }).catch(() => "");
      console.log([name, ...seen, `at ${page.url()}`, text, picture, ""].join("\n"));
      throw failure;
    } finally {
      await context.close();
    }
  });
}

/** A user whose address is confirmed. */
async function user(email, password) {
  const response = await fetch(`${NTIER_URL}/auth/v1/admin/users`, {
    method: "POST",
    headers: {
      "apikey": NTIER_SECRET_KEY, "authorization": `Bearer ${NTIER_SECRET_KEY}`, "content-type": "application/json",
    },
    body: JSON.stringify({ email, password, email_confirm: true }),
  });
  assert.equal(response.status, 200, await response.text());
}

/** Opens the inbox and clicks a link in the mail to this address; it leads back to the page. */
async function follow(page, email, link) {
  await page.goto(`${NTIER_URL}/inbox`);
  await page.getByRole("article").filter({ hasText: email }).getByRole("link", { name: link }).click();
  await page.waitForURL((url) => url.href.startsWith(`${NTIER_URL}/`) && url.pathname === "/");
}

async function fill(page, fields) {
  for (const [label, text] of Object.entries(fields)) await page.getByLabel(label, { exact: true }).fill(text);
}

async function click(page, button) {
  await page.getByRole("button", { name: button, exact: true }).click();
}

async function says(page, text) {
  await page.getByRole("status").filter({ hasText: text }).waitFor();
}

async function refuses(page, text) {
  await page.getByRole("alert").filter({ hasText: text }).waitFor();
}

/** Waits until the page is signed in, and says this of the session. */
async function shows(page, facts) {
  for (const [name, text] of Object.entries(facts)) {
    await page.getByTitle(name, { exact: true }).and(page.getByText(text, { exact: true })).waitFor();
  }
}
