package scheduler

import (
	"testing"

	"pgregory.net/rapid"
)

// The attributes of a node are what its spec says, in a form that takes less memory.
func TestAttributesAreThoseOfTheSpec(t *testing.T) {
	some := rapid.MapOf(rapid.StringMatching("[a-d]"), rapid.Custom(func(t *rapid.T) Value { return Value{Text: rapid.StringMatching("[xy]").Draw(t, "text")} }))
	rapid.Check(t, func(t *rapid.T) {
		values, others := some.Draw(t, "values"), some.Draw(t, "others")
		a := attributesOf(values)
		same := len(values) == len(others)
		for _, name := range []string{"a", "b", "c", "d"} {
			want, there := values[name]
			if got, ok := a.value(name); got != want || ok != there {
				t.Fatalf("%s is %v, %v of %v", name, got, ok, values)
			}
			other, known := others[name]
			same = same && want == other && there == known
		}
		if !a.are(values) || a.are(others) != same {
			t.Fatalf("%v are %v: %v, are %v: %v", a, values, a.are(values), others, a.are(others))
		}
	})
}
