// Command imports prints how the packages of the module import each other, and its ten longest types. Run it with
// `make imports`, or with `make imports BASE=COMMIT` to have those of an earlier commit beside those of the working tree.
//
// A layer is the length of the longest way from a package to one that imports none of the module. Tests, generated code
// and other modules are left out.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	base := flag.String("base", "", "an earlier commit to compare with")
	flag.Parse()
	if err := run(*base); err != nil {
		log.Fatal("imports: ", err)
	}
}

func run(base string) error {
	now, err := read("now", ".")
	if err != nil {
		return err
	}
	trees := []*tree{now}
	if base != "" {
		before, err := readCommit(base)
		if err != nil {
			return err
		}
		trees = []*tree{before, now}
	}
	printLayers(now.packages)
	printFolders(trees)
	for _, t := range trees {
		printInside(t, "resourcemanager")
	}
	printLongest("methods", trees, func(s *size) int { return s.methods })
	printLongest("fields", trees, func(s *size) int { return s.fields })
	return nil
}

// tree is the module at one time: its packages by name, and its types in the order of their names.
type tree struct {
	when     string
	packages map[string]*listed
	types    []*size
}

// read reads the module in a folder.
func read(when, dir string) (*tree, error) {
	packages, err := list(dir)
	if err != nil {
		return nil, err
	}
	types, err := measureAll(packages)
	return &tree{when, packages, types}, err
}

// readCommit reads the module as it was at a commit. It does so in a temporary folder: the working tree stays as it is.
func readCommit(commit string) (*tree, error) {
	name, err := exec.Command("git", "rev-parse", "--verify", "--quiet", "--short", "--end-of-options", commit+"^{commit}").Output()
	if err != nil {
		return nil, fmt.Errorf("this repository has no commit %q; name one, for example with make imports BASE=HEAD~10", commit)
	}
	short := strings.TrimSpace(string(name))
	dir, err := os.MkdirTemp("", "imports-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	archive := filepath.Join(dir, "base.tar")
	for _, command := range []*exec.Cmd{
		exec.Command("git", "archive", "--output="+archive, short),
		exec.Command("tar", "-xf", archive, "-C", dir),
	} {
		if out, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("unpack commit %s: %w: %s", short, err, bytes.TrimSpace(out))
		}
	}
	return read("at "+short, dir)
}

// listed is what `go list` reports of a package. Imports are those of the module, without its path.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Module     struct{ Path string }
}

// list returns the packages of the module in a folder, by name.
func list(dir string) (map[string]*listed, error) {
	command := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Module", "./...")
	command.Dir, command.Stderr = dir, os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w", dir, err)
	}
	packages := map[string]*listed{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &listed{}
		if err := decoder.Decode(p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the answer of go list: %w", err)
		}
		if len(p.GoFiles) == 0 {
			continue
		}
		prefix := p.Module.Path + "/"
		p.Imports = slices.DeleteFunc(p.Imports, func(path string) bool { return !strings.HasPrefix(path, prefix) })
		for i := range p.Imports {
			p.Imports[i] = strings.TrimPrefix(p.Imports[i], prefix)
		}
		slices.Sort(p.Imports)
		packages[strings.TrimPrefix(p.ImportPath, prefix)] = p
	}
}

func names(packages map[string]*listed) []string { return slices.Sorted(maps.Keys(packages)) }

// top is the top-level folder of a package.
func top(name string) string {
	folder, _, _ := strings.Cut(name, "/")
	return folder
}

func printLayers(packages map[string]*listed) {
	layers := map[string]int{}
	var layer func(name string) int
	layer = func(name string) int {
		if n, ok := layers[name]; ok || packages[name] == nil {
			return n
		}
		n := 0
		for _, imported := range packages[name].Imports {
			n = max(n, layer(imported)+1)
		}
		layers[name] = n
		return n
	}
	rows := map[int][]string{}
	for _, name := range names(packages) {
		rows[layer(name)] = append(rows[layer(name)], name)
	}
	fmt.Printf("Layers of the %d packages, from the top\n", len(packages))
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(rows))) {
		fmt.Printf("%3d  %s\n", n, strings.Join(rows[n], "\n     "))
	}
}

func printFolders(trees []*tree) {
	type pair struct{ from, to string }
	counts := map[pair][]int{}
	for i, t := range trees {
		for name, p := range t.packages {
			for _, imported := range p.Imports {
				way := pair{top(name), top(imported)}
				if way.from == way.to {
					continue
				}
				if counts[way] == nil {
					counts[way] = make([]int, len(trees))
				}
				counts[way][i]++
			}
		}
	}
	fmt.Printf("\nImports between top-level folders\n  %-35s", "")
	for _, t := range trees {
		fmt.Printf(" %10s", t.when)
	}
	fmt.Println()
	for _, way := range slices.SortedFunc(maps.Keys(counts), func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	}) {
		fmt.Printf("  %-16s → %-16s", way.from, way.to)
		for _, n := range counts[way] {
			fmt.Printf(" %10d", n)
		}
		fmt.Println()
	}
}

// printInside prints the imports between the packages of one folder.
func printInside(t *tree, folder string) {
	fmt.Printf("\nInside %s, %s\n", folder, t.when)
	for _, name := range names(t.packages) {
		if top(name) != folder {
			continue
		}
		var inside []string
		for _, imported := range t.packages[name].Imports {
			if top(imported) == folder {
				inside = append(inside, short(imported, folder))
			}
		}
		if len(inside) > 0 {
			fmt.Printf("  %-18s → %s\n", short(name, folder), strings.Join(inside, ", "))
		}
	}
}

func short(name, folder string) string {
	if name == folder {
		return "(root)"
	}
	return strings.TrimPrefix(name, folder+"/")
}

// size is how long a type is.
type size struct {
	name            string
	methods, fields int
}

// measureAll returns the types of the packages, in the order of their names.
func measureAll(packages map[string]*listed) ([]*size, error) {
	sizes := map[string]*size{}
	of := func(pkg, name string) *size {
		key := pkg + "." + name
		if sizes[key] == nil {
			sizes[key] = &size{name: key}
		}
		return sizes[key]
	}
	for _, name := range names(packages) {
		for _, file := range packages[name].GoFiles {
			syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join(packages[name].Dir, file), nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			if !ast.IsGenerated(syntax) {
				measure(syntax, func(t string) *size { return of(name, t) })
			}
		}
	}
	return slices.SortedFunc(maps.Values(sizes), func(a, b *size) int { return cmp.Compare(a.name, b.name) }), nil
}

// measure counts the methods and fields of the types in a file.
func measure(file *ast.File, of func(name string) *size) {
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil {
				of(receiver(d.Recv.List[0].Type)).methods++
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				t, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				if s, ok := t.Type.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						of(t.Name.Name).fields += max(1, len(field.Names))
					}
				}
			}
		}
	}
}

// receiver is the name of a receiver's type, without its pointer and type parameters.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// printLongest prints the ten types with the largest number, of equal ones those first by name: a column for each tree.
func printLongest(what string, trees []*tree, number func(*size) int) {
	const rows, width = 10, 50
	fmt.Printf("\nLongest types by %s\n", what)
	lines := make([]string, rows+1)
	for _, t := range trees {
		longest := slices.Clone(t.types)
		slices.SortStableFunc(longest, func(a, b *size) int { return cmp.Compare(number(b), number(a)) })
		lines[0] += fmt.Sprintf("       %-*s", width, t.when)
		for i, s := range longest[:min(rows, len(longest))] {
			lines[i+1] += fmt.Sprintf("%5d  %-*s", number(s), width, s.name)
		}
	}
	for _, line := range lines {
		fmt.Println(strings.TrimRight(line, " "))
	}
}
