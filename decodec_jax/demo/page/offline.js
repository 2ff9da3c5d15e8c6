// The service worker: keeps every file of the page, so that it works without a network, and isolates the page from
// others, which is what browsers ask before they give it threads.

const OURS = `decodec ${self.registration.scope} `; // other pages of this host may keep files of their own
const KEPT = `${OURS}VERSION`; // the build puts a digest of all files here

self.addEventListener("install", (event) => {
  const keep = async () => {
    const files = await (await fetch("files.json", { cache: "no-cache" })).json();
    await (await caches.open(KEPT)).addAll(files.map((file) => new Request(file, { cache: "no-cache" })));
    await self.skipWaiting();
  };
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const tidy = async () => {
    for (const name of await caches.keys()) if (name.startsWith(OURS) && name !== KEPT) await caches.delete(name);
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== self.location.origin) return;
  const answer = async () => {
    const kept = await (await caches.open(KEPT)).match(event.request, { ignoreSearch: true });
    const found = kept || (await fetch(event.request));
    const headers = new Headers(found.headers);
    headers.set("Cross-Origin-Opener-Policy", "same-origin");
    headers.set("Cross-Origin-Embedder-Policy", "require-corp");
    headers.set("Cross-Origin-Resource-Policy", "same-origin");
    return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
  };
  event.respondWith(answer());
});
