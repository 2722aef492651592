/** Decodes image files in a browser. */

/** Decodes an image file to RGBA pixels, without turning it and without converting its colours. */
export function decode(file: Blob): Promise<ImageData>;
