package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/internal/spec/spectest"
)

func TestFlagsAreRefusedWithTheSentenceThatEverybodyIsTold(t *testing.T) {
	address := serveTerm(t, emptyStore(), nil)
	for _, c := range spectest.Cases() {
		if c.Flags == nil {
			continue
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), append(c.Arguments(), "--server", address), streams{in: strings.NewReader(""), out: &out, err: &errs}, func(string) string { return "" })
		sentence, _, _ := strings.Cut(strings.TrimPrefix(errs.String(), "mammoth: "), "\n")
		if _, after, ok := strings.Cut(sentence, ": "); ok && strings.HasPrefix(sentence, "--") {
			sentence = after // it names the flag first
		}
		if code != exitUsage || sentence != c.Sentence {
			t.Errorf("%s: code %d, %q, want %q", c.Name, code, sentence, c.Sentence)
		}
	}
}

func TestFlagsHaveTheNamesThatEverybodyTakes(t *testing.T) {
	for name, sentence := range spectest.Names() {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"deploy", "web:1", "--name", name}, streams{in: strings.NewReader(""), out: &out, err: &errs}, func(string) string { return "" })
		if want := "mammoth: --name: " + fmt.Sprintf(sentence, "an app"); code != exitUsage || !strings.HasPrefix(errs.String(), want) {
			t.Errorf("code %d, %q, want %q", code, errs.String(), want)
		}
	}
}
