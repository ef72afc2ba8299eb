/** Files that are imported as they are, as text: those of the page of inspect-html.ts. */
declare module "*.css" {
  const text: string;
  export default text;
}

declare module "*.js" {
  const text: string;
  export default text;
}
