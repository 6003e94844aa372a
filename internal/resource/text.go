package resource

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"PiB", 1 << 50},
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"Pi", 1 << 50},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"PB", 1e15},
	{"B", 1},
}

// ParseBytes reads an amount of memory or disk: a number with a unit, as in 64MiB, 1.5Gi, 500MB. A number
// without a unit is refused, since nobody can tell which was meant.
func ParseBytes(text string) (int64, error) {
	trimmed := strings.TrimSpace(text)
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(trimmed, unit.suffix)
		if !ok {
			continue
		}
		value, err := parseNumber(strings.TrimSpace(number))
		if err != nil {
			return 0, fmt.Errorf("%q is not an amount of bytes; write for example 64MiB or 1GiB", text)
		}
		product := value * float64(unit.factor)
		if product >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is more bytes than any machine has; write for example 64MiB or 1GiB", text)
		}
		return int64(math.Round(product)), nil
	}
	if trimmed == "0" {
		return 0, nil
	}
	if _, err := parseNumber(trimmed); err == nil {
		return 0, fmt.Errorf("%q has no unit; did you mean %sMiB or %sGiB?", text, trimmed, trimmed)
	}
	if number, letter, ok := cutLast(trimmed, "kKmMgGtTpP"); ok {
		unit := strings.ToUpper(letter)
		return 0, fmt.Errorf("%q may mean units of 1000 or of 1024; write %s%siB (1024) or %s%sB (1000)", text, number, unit, number, unit)
	}
	return 0, fmt.Errorf("%q is not an amount of bytes; write for example 64MiB or 1GiB", text)
}

// cutLast cuts one of some letters from the end of a number.
func cutLast(text, letters string) (number, letter string, ok bool) {
	if text == "" || !strings.Contains(letters, text[len(text)-1:]) {
		return "", "", false
	}
	number, letter = strings.TrimSpace(text[:len(text)-1]), text[len(text)-1:]
	_, err := parseNumber(number)
	return number, letter, err == nil
}

// ParseCPU reads an amount of cpu into millicores: cores as in 0.5 or 2, or millicores as in 500m.
func ParseCPU(text string) (int64, error) {
	trimmed := strings.TrimSpace(text)
	number, milli := strings.CutSuffix(trimmed, "m")
	value, err := parseNumber(number)
	if err != nil {
		return 0, fmt.Errorf("%q is not an amount of cpu; write cores as in 0.5, or millicores as in 500m", text)
	}
	if !milli {
		value *= 1000
	}
	if value >= 1e12 {
		return 0, fmt.Errorf("%q is more cpu than any machine has; write cores as in 0.5, or millicores as in 500m", text)
	}
	if value != math.Trunc(value) {
		return 0, fmt.Errorf("%q is finer than a millicore; write for example 0.5 or 500m", text)
	}
	return int64(value), nil
}

// FormatBytes writes bytes in the largest binary unit that keeps it short: 64MiB, 1.5GiB, 100B.
func FormatBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	if n < 0 {
		if n == math.MinInt64 {
			n++
		}
		return "-" + FormatBytes(-n)
	}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	text := strconv.FormatFloat(value, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + units[unit]
}

// FormatCPU writes millicores as cores: 0.5, 2.
func FormatCPU(millis int64) string {
	return strconv.FormatFloat(float64(millis)/1000, 'f', -1, 64)
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

// parseNumber reads a plain non-negative decimal: no sign, exponent, hexadecimal, infinity.
func parseNumber(text string) (float64, error) {
	if text == "" || strings.Trim(text, "0123456789.") != "" {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return strconv.ParseFloat(text, 64)
}
