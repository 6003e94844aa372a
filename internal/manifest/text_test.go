package manifest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/internal/manifest"
)

// What a file of people or of another program may hold beside the keys of a manifest is refused in one sentence, with its line.
func TestWhatIsNoTextOfAManifestIsRefusedInOneSentence(t *testing.T) {
	for text, want := range map[string]string{
		"name: web\nimage: a:1\x00\n":                    "line 2: there is a NUL character here, but a manifest is a text; check that the file is complete",
		"name: web\nimage: \"a\xff\"\n":                  "line 2: the byte 0xff is not UTF-8, and a manifest is",
		"name: web\nimage: a\x1bb\n":                     `line 2: the control character U+001B is here; write it as "\u001b", in quotation marks`,
		"\xff\xfen\x00a\x00":                             "the file is UTF-16, but a manifest must be UTF-8; save it as UTF-8",
		"name: web\nname: api\nimage: a:1\n":             `line 2: key "name" is given twice; the first is in line 1`,
		"name: web\nimage: a:1\n---\nname: api\n":        "line 3: the file has more than one document; a file is a manifest",
		"name: web\nimage: &a a:1\n":                     "line 2: anchors and aliases are not supported; write the value out",
		"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n":    "line 1, column 4: anchors and aliases are not supported; write the value out",
		"name: web\nimage: a:1\nenv: {<<: {A: b}}\n":     "line 3: << in env must be a text, not a mapping",
		"name: web\nroles:\n\tfront: {image: front:1}\n": "line 3: this is not YAML: no value can begin with this character; indent with spaces instead of tabs, and quote a text that begins with @, ` or %",
		"":                               "the file is empty",
		" \n# nothing\n":                 "the file is empty",
		"{" + strings.Repeat("a,", 5000): "line 1: this is not YAML: did not find expected node content",
		strings.Repeat("[", 20_000):      "line 1: this is not YAML: exceeded max depth of 10000",
	} {
		if _, err := manifest.ParseApp([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.40q: %v\nwant %s", text, err, want)
		}
	}
}

func TestAByteOrderMarkIsPassedOver(t *testing.T) {
	for _, text := range []string{"\ufeffname: web\nimage: a:1\n", "\ufeff{\"name\":\t\"web\", \"image\": \"a:1\"}", "name: web\r\nimage:\ta:1\r\n"} {
		if app, err := manifest.ParseApp([]byte(text)); err != nil || app.Spec.GetName() != "web" || app.Spec.GetRoles()[0].GetImage() != "a:1" {
			t.Errorf("%q: %v, %v", text, app, err)
		}
	}
}

// JSON from a program is one line. Mistakes are found in it by their columns, which are those of the file as it is written.
func TestMistakesInOneLineHaveTheirColumns(t *testing.T) {
	text := `{"name":"web","image":"team\/w\u0065b:1","env":{"A":"\ud83d\ude00","B":[1]},"instnces":3}`
	_, err := manifest.ParseApp([]byte(text))
	var mistakes manifest.Errors
	if !errors.As(err, &mistakes) || len(mistakes) != 2 {
		t.Fatalf("got %v", err)
	}
	for i, at := range []string{`[1]`, `"instnces"`} {
		if column := strings.Index(text, at) + 1; mistakes[i].Line != 1 || mistakes[i].Column != column {
			t.Errorf("%v: column %d, want %d", mistakes[i], mistakes[i].Column, column)
		}
	}
	if want := fmt.Sprintf(`line 1, column %d: unknown key "instnces"; did you mean "instances"?`, mistakes[1].Column); mistakes[1].Error() != want {
		t.Errorf("got %s, want %s", mistakes[1], want)
	}
}

// A file of mistakes costs no more than a few of them, and is answered with so many.
func TestMistakesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for _, text := range []string{
		"name: web\nimage: a:1\nschedule: [" + strings.Repeat("{cron: x},", 50_000) + "]\n",
		strings.Repeat("kay: 1\n", 50_000),
		"name: web\nimage: a:1\nports: [" + strings.Repeat("{name: http, container: 80},", 20_000) + "]\n",
		"? " + long + "\n: 1\n",
	} {
		_, err := manifest.ParseApp([]byte(text))
		var mistakes manifest.Errors
		if !errors.As(err, &mistakes) || len(mistakes) > 65 || len(err.Error()) > 65*600 {
			t.Errorf("%.60q: %d mistakes in %d bytes", text, len(mistakes), len(err.Error()))
		}
		if last := mistakes[len(mistakes)-1]; len(mistakes) > 10 && last.Message != "the file has more than 64 mistakes" {
			t.Errorf("%.60q ends with %v", text, last)
		}
	}
}
