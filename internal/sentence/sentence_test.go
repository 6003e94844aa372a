package sentence

import "testing"

func TestOfManyNamesTheFirstFewAreSaid(t *testing.T) {
	for want, names := range map[string][]string{
		"":                        nil,
		"web-1":                   {"web-1"},
		"web-1, web-2, web-3":     {"web-1", "web-2", "web-3"},
		"a, b, c and 2 more":      {"a", "b", "c", "d", "e"},
		"front-1, front-2, shop":  {"front-1", "front-2", "shop"},
		"web-1, web-2 (3), web-9": {"web-1", "web-2 (3)", "web-9"},
	} {
		if got := Names(names); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestASentenceHasItsReasonAndWhatHelps(t *testing.T) {
	for want, s := range map[string][3]string{
		"it waits":                              {"it waits"},
		"it waits: no node has room":            {"it waits", "no node has room"},
		"it waits; add one":                     {"it waits", "", "add one"},
		"it waits: no node has room; add a one": {"it waits", "no node has room", "add a one"},
	} {
		if got := Because(s[0], s[1], s[2]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAnOutlookIsOneSentence(t *testing.T) {
	for want, o := range map[string][3]string{
		"it fails after 5 failures":                       {"it fails after 5 failures"},
		"it fails at 10:31:20":                            {"it fails", "at 10:31:20"},
		"it fails unless it makes progress":               {"it fails", "", "it makes progress"},
		"it is reverted in 2m0s unless it makes progress": {"it is reverted", "in 2m0s", "it makes progress"},
	} {
		if got := Outlook(o[0], o[1], o[2]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
