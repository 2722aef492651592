/** Fills in what can be set for a bundle, and reads what the person chose. */

const $ = (id) => document.getElementById(id);

/** Lists the bundles that the server offers, and one that the person opened. */
export function showBundles(entries, chosen) {
  $("bundle").replaceChildren(
    ...entries.map(({ name, size_bytes: size }, at) => new Option(`${name}, ${megabytes(size)}`, at)),
  );
  $("bundle").value = String(chosen);
}

/** Shows the ways in which images may leave a bundle's tower, and its labels where they can be changed. */
export function showSettings({ points, defaultPoint, exits, hasText, labels }) {
  const named = points.map((point) => {
    const saved = Math.round(100 * point.flops_saved);
    return new Option(`${point.name}, saves about ${saved} %`, `point ${point.name}`);
  });
  const limit = exits.length > 0 ? [new Option("a time limit", "limit")] : [];
  $("policy").replaceChildren(...named, new Option("full depth", "full"), ...limit);
  $("policy").value = defaultPoint === null ? "full" : `point ${defaultPoint}`;
  $("policy").disabled = false;
  $("labels-label").hidden = $("labels-buttons").hidden = !hasText;
  $("labels").value = labels.join("\n");
  showLimit();
}

/** Shows that no bundle is open whose settings could be chosen. */
export function hideSettings() {
  $("policy").replaceChildren();
  $("policy").disabled = true;
  $("labels-label").hidden = $("labels-buttons").hidden = $("limit-label").hidden = true;
}

/** Shows the field for a time limit where it is chosen. */
export function showLimit() {
  $("limit-label").hidden = $("policy").value !== "limit";
}

/** Gives the policy that is chosen, in words for Runner; null where the time limit is no time. */
export function chosenPolicy() {
  const [kind, ...name] = $("policy").value.split(" ");
  const ms = Number($("limit").value);
  if (kind === "limit" && !(ms >= 1)) return null;
  return { kind, name: name.join(" "), ms };
}

/** Gives the labels that were typed. */
export function typedLabels() {
  return $("labels")
    .value.split(/[\n,]/)
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/** Writes a size in MB. */
export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
