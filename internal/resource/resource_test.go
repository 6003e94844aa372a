package resource_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mammoth-os/mammoth/internal/resource"
)

func vectors() *rapid.Generator[resource.Vector] {
	return rapid.Custom(func(t *rapid.T) resource.Vector {
		var v resource.Vector
		for i := range v {
			v[i] = rapid.Int64().Draw(t, "index")
		}
		return v
	})
}

func TestArithmeticNeverWraps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, w := vectors().Draw(t, "v"), vectors().Draw(t, "w")
		sum := v.Add(w)
		for i := range sum {
			if w[i] >= 0 && sum[i] < v[i] || w[i] <= 0 && sum[i] > v[i] {
				t.Fatalf("%d + %d = %d", v[i], w[i], sum[i])
			}
		}
		difference := v.Sub(w)
		for i := range difference {
			if w[i] >= 0 && difference[i] > v[i] || w[i] <= 0 && difference[i] < v[i] {
				t.Fatalf("%d - %d = %d", v[i], w[i], difference[i])
			}
		}
		n := rapid.Int64().Draw(t, "n")
		product := v.Scale(n)
		for i := range product {
			if v[i] > 0 && n > 0 && product[i] < v[i] || v[i] < 0 && n < 0 && product[i] < 0 {
				t.Fatalf("%d × %d = %d", v[i], n, product[i])
			}
		}
	})
}

func TestLackingNamesTheResourceThatDoesNotFit(t *testing.T) {
	free := resource.Vector{resource.CPU: 1000, resource.Memory: 64}
	if got := (resource.Vector{resource.CPU: 500, resource.Memory: 65}).Lacking(free); got != resource.Memory {
		t.Errorf("got index %d, want memory", got)
	}
	if (resource.Vector{resource.CPU: 1000}).Lacking(free) >= 0 {
		t.Error("an exact fit was refused")
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{"64MiB": 64 << 20, "1Gi": 1 << 30, "1.5GiB": 3 << 29, "500MB": 5e8, "0": 0, "12 KiB": 12 << 10, "7B": 7} {
		if got, err := resource.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]int64{"0.5": 500, "500m": 500, "2": 2000, "0": 0, "1.25": 1250, "2.01": 2010, ".5": 500, "5.": 5000, "2.0100": 2010, "500.0m": 500} {
		if got, err := resource.ParseCPU(text); err != nil || got != want {
			t.Errorf("ParseCPU(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

// Every amount with up to three places behind the point is what stands there, to the millicore and to the byte.
func TestEveryDecimalIsExact(t *testing.T) {
	for millis := range int64(70_000) {
		text := fmt.Sprintf("%d.%03d", millis/1000, millis%1000)
		if got, err := resource.ParseCPU(text); err != nil || got != millis {
			t.Fatalf("%s cores are %d, %v", text, got, err)
		}
		if got, err := resource.ParseCPU(resource.FormatCPU(millis)); err != nil || got != millis {
			t.Fatalf("%d was written %s and read %d, %v", millis, resource.FormatCPU(millis), got, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<50).Draw(t, "thousandths")
		text := fmt.Sprintf("%d.%03d", n/1000, n%1000)
		if millis := n % 1e12; millis == n {
			if got, err := resource.ParseCPU(text); err != nil || got != n {
				t.Fatalf("%s cores are %d, %v", text, got, err)
			}
		}
		for unit, factor := range map[string]int64{"KiB": 1 << 10, "kB": 1000, "B": 1} {
			want := n/1000*factor + (n%1000*factor+500)/1000
			if got, err := resource.ParseBytes(text + unit); err != nil || got != want {
				t.Fatalf("%s%s are %d bytes, %v; want %d", text, unit, got, err, want)
			}
		}
		if got, err := resource.ParseBytes(resource.ExactBytes(n)); err != nil || got != n {
			t.Fatalf("%d was written %s and read %d, %v", n, resource.ExactBytes(n), got, err)
		}
	})
}

func TestBadQuantitiesAreRefusedWithAHint(t *testing.T) {
	for text, hint := range map[string]string{"5": "did you mean 5MiB or 5GiB", "-1MiB": "64MiB", "": "64MiB", "MiB": "64MiB", "1e3MiB": "64MiB", "99999999PiB": "more bytes", "1.2.3MiB": "64MiB", ".MiB": "64MiB", strings.Repeat("9", 1000) + "B": "…"} {
		if _, err := resource.ParseBytes(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("ParseBytes(%q): %v, want a hint with %q", text, err, hint)
		}
	}
	for _, text := range []string{"-1", "", "half", "0.0001", "Inf", "1e3", "m", "1.2.3", ".", "0.5mm", "1000000000", "0.5005", strings.Repeat("9", 1000)} {
		if _, err := resource.ParseCPU(text); err == nil {
			t.Errorf("ParseCPU accepted %q", text)
		}
	}
}

func TestFormattedBytesReadBack(t *testing.T) {
	for _, n := range []int64{0, 1, 1023, 64 << 20, 3 << 29, 1 << 50} {
		text := resource.FormatBytes(n)
		if got, err := resource.ParseBytes(text); err != nil || got != n {
			t.Errorf("%d was written %s and read %d, %v", n, text, got, err)
		}
	}
}
