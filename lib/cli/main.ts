#!/usr/bin/env node
// The `attune` command.

import { failed, runProgram } from "./program.ts";

process.env["ATTUNE_NICE"] ??= "10"; // a command serves nobody beside it: its threads step back less far than in a library

// What nobody awaited is a bug of ours; say so in one line and end.
process.on("uncaughtException", (error) => process.exit(failed(error)));
process.on("unhandledRejection", (error) => process.exit(failed(error)));

void runProgram(process.argv.slice(2)).then((code) => process.exit(code));
