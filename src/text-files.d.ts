/** Files that are imported as they are, as text: those of pages. */
declare module "*.css" {
  const text: string;
  export default text;
}

declare module "*.js" {
  const text: string;
  export default text;
}
