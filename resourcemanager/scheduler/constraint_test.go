package scheduler

import (
	"strings"
	"testing"
)

func TestConstraintsAreReadAsPeopleWriteThem(t *testing.T) {
	node := map[string]Value{
		"disk_type": {Text: "ssd"}, "cores": {Kind: NumberValue, Number: 8}, "gpu": {Kind: FlagValue, Flag: true}, "kernel": {Text: "5.10"},
	}
	for text, want := range map[string]bool{
		"disk_type == ssd": true, "disk_type==ssd": true, `disk_type == "ssd"`: true, "disk_type == hdd": false, "disk_type != hdd": true,
		"cores >= 8": true, "cores > 8": false, "cores < 8.5": true, "cores <= 7": false, "cores == 8": true, `cores == "8"`: true,
		"disk_type in (hdd, ssd)": true, "disk_type in (hdd)": false, "cores in (4, 8)": true,
		"exists gpu": true, "gpu exists": true, "fpga exists": false, "gpu == true": true, "gpu != true": false,
		"fpga == 1": false, "fpga != 1": true, "fpga < 1": false, "kernel == 5.10": true, "cores == 8.0": true, `kernel == "5.10"`: true, "disk_type > aaa": true,
	} {
		c, err := ParseConstraint(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		have, ok := node[c.Attribute]
		if got := c.Matches(have, ok); got != want {
			t.Errorf("%s gave %v, want %v", text, got, want)
		}
	}
}

func TestOtherTextIsNoConstraint(t *testing.T) {
	for text, hint := range map[string]string{
		"": "is empty", "gpu": "no operator", "a = b": "unknown operator", "a ==": "has no value", "a == b c": "one value",
		"== b": "begin with the name", "a in b": "a list", "a in ()": "a list", "a in (b": "a list", "a in (b,)": "a list", "a exists b": "more after exists",
		`a == "b`: "never closed", "gpu < true": "flag", "a == (": "one value", `a "==" b`: "no operator",
	} {
		_, err := ParseConstraint(text)
		if err == nil || !strings.Contains(err.Error(), hint) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one sentence with %q", text, err, hint)
		}
	}
}

func FuzzParseConstraint(f *testing.F) {
	for _, text := range []string{"disk_type == ssd", "a in (1, true, \"x y\")", "gpu exists", "a<=3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConstraint(text)
		if err != nil {
			return
		}
		again, err := ParseConstraint(c.String())
		if err != nil || again.String() != c.String() {
			t.Fatalf("%q was read as %q and that as %q, %v", text, c, again, err)
		}
		c.Matches(Value{Text: "x"}, true)
	})
}
