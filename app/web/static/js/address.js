/** Addresses of the service, derived from the address of this module, so that any path prefix works. */

const ROOT = new URL("../../", import.meta.url).pathname;

/** Return the address of a path of the service, which begins with a slash. */
export function address(path) {
  return ROOT + path.slice(1);
}
