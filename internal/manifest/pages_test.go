package manifest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mammoth-os/mammoth/internal/manifest"
)

// A page that people look keys up in, and the files here that read these keys.
type page struct {
	path    string
	sources []string
	// further are the keys that are read otherwise: the settings of companions, which several of them may have.
	further []string
	parse   func(string) error
}

func pages() []page {
	settings := map[string]bool{}
	for _, of := range manifest.Companions {
		for name := range of {
			settings[name] = true
		}
	}
	var further []string
	for name := range settings {
		further = append(further, name)
	}
	return []page{
		{"../../docs/manifest.md", []string{"manifest.go", "health.go", "expose.go"}, further, func(text string) error {
			_, err := manifest.ParseApp([]byte(text))
			return err
		}},
		{"../../docs/queues.md", []string{"queues.go", "lending.go"}, nil, func(text string) error {
			if strings.HasPrefix(text, "lending:") {
				_, err := manifest.ParseLending([]byte(text))
				return err
			}
			_, err := manifest.ParseDeclaration([]byte(text))
			return err
		}},
	}
}

// Two pages tell what may stand in the files that people write. Each key that is read has a row there as often as there is
// an object that has it, no row is of a key that is not read, and each row's key is in an example of its section.
func TestPagesTellEveryKey(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|")
	for _, p := range pages() {
		text, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		want, got := map[string]int{}, map[string]int{}
		for _, key := range append(readKeys(t, p.sources), p.further...) {
			want[key]++
		}
		// What the file begins with is no row of a table but the file.
		delete(want, "queues")
		delete(want, "lending")
		for section := range strings.SplitSeq(string(text), "\n## ") {
			examples := strings.Join(yamlBlocks(section), "\n")
			for _, found := range row.FindAllStringSubmatch(section, -1) {
				got[found[1]]++
				if !regexp.MustCompile(`\b` + found[1] + `:`).MatchString(examples) {
					t.Errorf("%s: no example in the section of key %q has it", p.path, found[1])
				}
			}
		}
		for key, n := range want {
			if got[key] != n {
				t.Errorf("%s: key %q has %d rows, but %d objects have it", p.path, key, got[key], n)
			}
		}
		for key := range got {
			if want[key] == 0 {
				t.Errorf("%s: key %q is told, and nothing reads it", p.path, key)
			}
		}
	}
}

func TestExamplesOfThePagesAreRight(t *testing.T) {
	for _, p := range pages() {
		text, err := os.ReadFile(p.path)
		if err != nil {
			t.Fatal(err)
		}
		blocks := yamlBlocks(string(text))
		if len(blocks) < 3 {
			t.Errorf("%s has %d examples", p.path, len(blocks))
		}
		for _, block := range blocks {
			if err := p.parse(block); err != nil {
				t.Errorf("%s: %v in\n%s", p.path, err, block)
			}
		}
	}
}

func yamlBlocks(text string) []string {
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, found[1])
	}
	return blocks
}

// readKeys are the keys of all objects that files read, each as often as there is such an object: those of the literals of
// type fields, and those that are added to one by name.
func readKeys(t *testing.T, files []string) []string {
	t.Helper()
	var found []string
	add := func(e ast.Expr) {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			key, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, key)
		}
	}
	seen := map[string]bool{}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), filepath.Clean(file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				if name, ok := n.Type.(*ast.Ident); ok && name.Name == "fields" {
					for _, element := range n.Elts {
						if pair, ok := element.(*ast.KeyValueExpr); ok {
							add(pair.Key)
						}
					}
				}
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					index, ok := left.(*ast.IndexExpr)
					if !ok {
						continue
					}
					if name, ok := index.X.(*ast.Ident); ok && name.Name == "fields" {
						// The companion is read beside an app's keys and again beside a role's.
						if literal, ok := index.Index.(*ast.BasicLit); ok && !seen[literal.Value] {
							seen[literal.Value] = true
							add(literal)
						}
					}
				}
			}
			return true
		})
	}
	if len(found) < 20 || !slices.Contains(found, "name") {
		t.Fatalf("only %d keys were found; has the reader changed?", len(found))
	}
	return found
}
