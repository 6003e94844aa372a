// Command imports prints how the packages of a module import each other, and its ten longest types. Run it with
// `make imports`, or with the folder of another checkout as its argument.
//
// A layer is the length of the longest way from a package to one that imports none of the module. Tests, generated code
// and other modules are left out.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
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
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	packages, err := list(dir)
	if err == nil {
		printLayers(packages)
		printFolders(packages)
		printInside(packages, "resourcemanager")
		err = printTypes(packages)
	}
	if err != nil {
		log.Fatal("imports: ", err)
	}
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

func printFolders(packages map[string]*listed) {
	counts := map[string]map[string]int{}
	for _, name := range names(packages) {
		from := top(name)
		if counts[from] == nil {
			counts[from] = map[string]int{}
		}
		for _, imported := range packages[name].Imports {
			if to := top(imported); to != from {
				counts[from][to]++
			}
		}
	}
	fmt.Println("\nTop-level folders, with the number of imports")
	for _, from := range slices.Sorted(maps.Keys(counts)) {
		for _, to := range slices.Sorted(maps.Keys(counts[from])) {
			fmt.Printf("  %-16s → %-16s %3d\n", from, to, counts[from][to])
		}
	}
}

// printInside prints the imports between the packages of one folder.
func printInside(packages map[string]*listed, folder string) {
	fmt.Printf("\nInside %s\n", folder)
	for _, name := range names(packages) {
		if top(name) != folder {
			continue
		}
		var inside []string
		for _, imported := range packages[name].Imports {
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

func printTypes(packages map[string]*listed) error {
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
				return err
			}
			if !ast.IsGenerated(syntax) {
				measure(syntax, func(t string) *size { return of(name, t) })
			}
		}
	}
	all := slices.SortedFunc(maps.Values(sizes), func(a, b *size) int { return cmp.Compare(a.name, b.name) })
	longest("methods", all, func(s *size) int { return s.methods })
	longest("fields", all, func(s *size) int { return s.fields })
	return nil
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

// longest prints the ten types with the largest number, of equal ones those first by name.
func longest(what string, all []*size, number func(*size) int) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b *size) int { return cmp.Compare(number(b), number(a)) })
	fmt.Printf("\nLongest types by %s\n", what)
	for _, s := range all[:min(10, len(all))] {
		fmt.Printf("%5d  %s\n", number(s), s.name)
	}
}
