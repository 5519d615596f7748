/** Where the service is: this module lies in `static/js/` below it, at whatever path a proxy serves it. */

const ROOT = new URL("../../", import.meta.url).pathname;

/** The address of one of the service's paths, which begins with a slash, on this page's host. */
export function address(path) {
  return ROOT + path.slice(1);
}
