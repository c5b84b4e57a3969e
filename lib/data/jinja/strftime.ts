// Python's strftime in the C locale, for templates that print a date.

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = "January February March April May June July August September October November December".split(" ");

const two = (n: number): string => String(n).padStart(2, "0");

/** The date, in local time, by a format such as "%d %b %Y". Unknown directives stay as written. */
export function strftime(date: Date, format: string): string {
  const day = date.getDay();
  const start = Date.UTC(date.getFullYear(), 0, 1);
  const yearDay = Math.round((Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - start) / 86_400_000);
  const hour12 = date.getHours() % 12 || 12;
  const parts: Record<string, () => string> = {
    a: () => DAYS[day]!.slice(0, 3),
    A: () => DAYS[day]!,
    w: () => String(day),
    u: () => String(day || 7),
    d: () => two(date.getDate()),
    e: () => String(date.getDate()).padStart(2, " "),
    b: () => MONTHS[date.getMonth()]!.slice(0, 3),
    h: () => MONTHS[date.getMonth()]!.slice(0, 3),
    B: () => MONTHS[date.getMonth()]!,
    m: () => two(date.getMonth() + 1),
    y: () => two(date.getFullYear() % 100),
    Y: () => String(date.getFullYear()),
    C: () => two(Math.floor(date.getFullYear() / 100)),
    H: () => two(date.getHours()),
    I: () => two(hour12),
    p: () => (date.getHours() < 12 ? "AM" : "PM"),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    f: () => String(date.getMilliseconds() * 1000).padStart(6, "0"),
    j: () => String(yearDay + 1).padStart(3, "0"),
    U: () => two(Math.floor((yearDay + 7 - day) / 7)),
    W: () => two(Math.floor((yearDay + 7 - ((day + 6) % 7)) / 7)),
    z: () => "",
    Z: () => "",
    s: () => String(Math.floor(date.getTime() / 1000)),
    D: () => strftime(date, "%m/%d/%y"),
    F: () => strftime(date, "%Y-%m-%d"),
    T: () => strftime(date, "%H:%M:%S"),
    R: () => strftime(date, "%H:%M"),
    c: () => strftime(date, "%a %b %e %H:%M:%S %Y"),
    x: () => strftime(date, "%m/%d/%y"),
    X: () => strftime(date, "%H:%M:%S"),
    n: () => "\n",
    t: () => "\t",
    "%": () => "%",
  };
  return format.replace(/%(-?)([a-zA-Z%])/g, (whole, minus: string, letter: string) => {
    if (!Object.hasOwn(parts, letter)) return whole;
    const text = parts[letter]!();
    return minus ? text.replace(/^0+(?=.)/, "") : text;
  });
}
