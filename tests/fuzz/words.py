"""Words that a person, a script or a shell may give by mistake, or on purpose."""

HUGE = "9" * 30
NUMBERS = (
    "", " ", "-1", "0", "-0", "00", "nan", "NaN", "inf", "-inf", "infinity", "1e999", "1e-999", "-1e400",
    "1e30",
    HUGE, f"-{HUGE}", "9" * 5000, f"0.{HUGE}", "0x10", "0b1", "1_000", "1__0", "٢", "１", "½", "²", "Ⅷ",
    "1.5",
    "-0.5", "1,5", "1,", ",", " 1", "1 ", "+1", "++1", "1e", "e5", ".", "..", "-", "--", "none", "None",
    "null",
    "true", "[]", "{}", "[1]", "1j", "1;2", "1:2", "2:1", "1=2", "=", "1x2", "x", "3x", "x3", "3x-1x2",
    "3x0x4",
    "3xx4", "0x0x0", "1%", "50%", "1GiB", "-1GiB", "1e3GiB", "GiB", "1 GiB GiB", f"{HUGE}TiB",
    "9" * 400 + "GiB",
    "18446744073709551616", "9223372036854775808", "2147483648", "4294967296", "-9223372036854775809",
)  # fmt: skip
"""Where a number, a size or a limit belongs."""

TERMINAL = (
    "\x1b[31mred", "\x1b]0;title\x07", "a\nb", "a\rb", "\x9b31m", "‮gnp.exe", "\udcff", "a\udc80b", "\t",
    "\x7f", "\u2028", "￿", "\U000e0001", "é" * 300, "名", "\u200b",
)  # fmt: skip
"""What a terminal obeys, and what isn't text."""

TEXTS = (
    *TERMINAL, "", " ", "-", "--", "---", "-x", "--nothing", "=", ":", "::", ":::", ".", "..", "../..", "/",
    "//",
    "~", "*", "?", "%s", "%n", "{}", "{0}", "[bold]", "[/]", "[red]x", "$HOME", "`id`", "'", '"', "\\", "<b>",
    "&amp;", "a b", "CON", "None", "True", "0", "nul", "x" * 5000, "a/" * 600, "no/such/file", "net.py",
    "picture.png", "pictures", "weights.safetensors", "/dev/null", "/proc/self/none",
)  # fmt: skip
"""Where a name, a choice or a path belongs."""
