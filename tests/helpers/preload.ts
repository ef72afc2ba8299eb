/** Loaded before the test files: what holds for each of them. */
import { afterAll } from "bun:test";
import { removeTempFolders } from "./temp.ts";

// A hook of a module that several test files share would be that of the first file alone.
afterAll(removeTempFolders);
