package resource

import (
	"fmt"
	"math"
	"math/big"
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

// ParseBytes parses an amount of memory or disk: a number with a unit, as in 64MiB, 1.5Gi, 500MB. It is rounded to whole
// bytes. A number without a unit is refused as ambiguous.
func ParseBytes(text string) (int64, error) {
	trimmed := strings.TrimSpace(text)
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(trimmed, unit.suffix)
		if !ok {
			continue
		}
		number = strings.TrimSpace(number)
		value, ok := parseNumber(number)
		if !ok {
			return 0, fmt.Errorf("%s is not an amount of bytes; write for example 64MiB or 1GiB", quoted(text))
		}
		bytes, _ := round(value, unit.factor)
		if !bytes.IsInt64() {
			return 0, fmt.Errorf("%s is more bytes than any machine has; write for example 64MiB or 1GiB", quoted(text))
		}
		return bytes.Int64(), nil
	}
	if trimmed == "0" {
		return 0, nil
	}
	if _, ok := parseNumber(trimmed); ok {
		return 0, fmt.Errorf("%s has no unit; did you mean %sMiB or %sGiB?", quoted(text), trimmed, trimmed)
	}
	if number, letter, ok := cutLast(trimmed, "kKmMgGtTpP"); ok {
		unit := strings.ToUpper(letter)
		return 0, fmt.Errorf("%s may mean units of 1000 or of 1024; write %s%siB (1024) or %s%sB (1000)", quoted(text), number, unit, number, unit)
	}
	return 0, fmt.Errorf("%s is not an amount of bytes; write for example 64MiB or 1GiB", quoted(text))
}

// cutLast splits one of some letters from the end of a number.
func cutLast(text, letters string) (number, letter string, ok bool) {
	if text == "" || !strings.Contains(letters, text[len(text)-1:]) {
		return "", "", false
	}
	number, letter = strings.TrimSpace(text[:len(text)-1]), text[len(text)-1:]
	_, ok = parseNumber(number)
	return number, letter, ok
}

// ParseCPU parses an amount of cpu into millicores: cores as in 0.5 or 2, or millicores as in 500m.
func ParseCPU(text string) (int64, error) {
	number, milli := strings.CutSuffix(strings.TrimSpace(text), "m")
	value, ok := parseNumber(number)
	if !ok {
		return 0, fmt.Errorf("%s is not an amount of cpu; write cores as in 0.5, or millicores as in 500m", quoted(text))
	}
	factor := int64(1000)
	if milli {
		factor = 1
	}
	millis, exact := round(value, factor)
	switch {
	case !millis.IsInt64() || millis.Int64() >= 1e12:
		return 0, fmt.Errorf("%s is more cpu than any machine has; write cores as in 0.5, or millicores as in 500m", quoted(text))
	case !exact:
		return 0, fmt.Errorf("%s is finer than a millicore; write for example 0.5 or 500m", quoted(text))
	}
	return millis.Int64(), nil
}

// FormatBytes formats bytes in the largest binary unit with a short result: 64MiB, 1.5GiB, 100B.
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

// ExactBytes formats bytes in the largest binary unit without a fraction.
func ExactBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	unit := 0
	for n != 0 && n%1024 == 0 && unit < len(units)-1 {
		n /= 1024
		unit++
	}
	return strconv.FormatInt(n, 10) + units[unit]
}

// FormatCPU formats millicores as cores: 0.5, 2.
func FormatCPU(millis int64) string {
	if millis < 0 {
		return "-" + FormatCPU(-max(millis, -math.MaxInt64))
	}
	text := fmt.Sprintf("%d.%03d", millis/1000, millis%1000)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

// quoted quotes a person's text, truncated for a message.
func quoted(text string) string {
	if len(text) > maxNumber {
		return strconv.Quote(strings.ToValidUTF8(text[:maxNumber], "")) + "…"
	}
	return strconv.Quote(text)
}

// maxNumber is the longest number.
const maxNumber = 64

// parseNumber parses a plain non-negative decimal exactly: no sign, exponent, hexadecimal, infinity.
func parseNumber(text string) (*big.Rat, bool) {
	if text == "" || len(text) > maxNumber || strings.Trim(text, "0123456789.") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

// round returns the nearest whole number to value times factor, and whether it is exact.
func round(value *big.Rat, factor int64) (whole *big.Int, exact bool) {
	product := new(big.Rat).Mul(value, new(big.Rat).SetInt64(factor))
	doubled := new(big.Int).Mul(product.Num(), big.NewInt(2))
	doubled.Add(doubled, product.Denom())
	return doubled.Div(doubled, new(big.Int).Mul(product.Denom(), big.NewInt(2))), product.IsInt()
}
