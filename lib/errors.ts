// The typed errors of the library. Every message says what must hold, what was given and, where known, how to mend it.

/** Base of all errors that attune raises on purpose; `code` is stable. Exit codes of the command follow the class. */
export class AttuneError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A config key, flag or argument is wrong. Exit code 2. */
export class ConfigError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_CONFIG", message, options);
  }
}

/** A data, model or tokenizer file is wrong. Exit code 3. */
export class DataError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_DATA", message, options);
  }
}

/** Shapes or dtypes of a graph do not fit; raised while tracing, never during a step. */
export class ShapeError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_SHAPE", message, options);
  }
}

/** The run does not fit in memory. Exit code 4. */
export class OutOfMemoryError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_MEMORY", message, options);
  }
}

/** The device is unavailable or was lost. Exit code 5. */
export class DeviceError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_DEVICE", message, options);
  }
}

/** A loss or gradient is not finite. Exit code 6. */
export class NumericError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_NUMERIC", message, options);
  }
}

/** Writing failed during a run. Exit code 7. */
export class WriteError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_WRITE", message, options);
  }
}

/** The object is closed, busy or in another state than the call needs. */
export class StateError extends AttuneError {
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(options?.code ?? "ERR_STATE", message, options);
  }
}

const UNREAD: ReadonlyMap<string, string> = new Map([
  ["ENOENT", "no such file"],
  ["ENOTDIR", "a path that leads through a file"],
  ["EISDIR", "a folder"],
  ["EACCES", "no permission to read it"],
  ["EPERM", "no permission to read it"],
  ["ELOOP", "links that lead in a circle"],
]);

/** Why something could not be read, in words: "no such file". */
export function whyUnread(error: unknown): string {
  return UNREAD.get((error as NodeJS.ErrnoException).code ?? "") ?? String((error as Error).message);
}
