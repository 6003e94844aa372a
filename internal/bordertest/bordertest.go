// Package bordertest holds the parts of a package to their borders: a part is some types whose fields only some files select. It reads the
// source of the package and the types of what is declared in it.
package bordertest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Part says what belongs to a part of a package.
type Part struct {
	// Types are the part itself and what is its own of the records that all parts share. Only Files select their fields.
	Types, Files []string
	// Writes are the fields of records that only Files change; all parts read them. They are written as in "app.counts app.record.State".
	Writes string
}

// Source is a package without its tests, and the types of what is declared in it. What depends on other packages has no types.
type Source struct {
	// Files are the files of the package by their names.
	Files map[string]*ast.File
	Info  types.Info
	set   *token.FileSet
	types *types.Package
}

// Read reads the package in a folder.
func Read(t testing.TB, dir string) *Source {
	t.Helper()
	s := &Source{set: token.NewFileSet(), Files: map[string]*ast.File{}}
	s.Info.Selections, s.Info.Uses, s.Info.Defs = map[*ast.SelectorExpr]*types.Selection{}, map[*ast.Ident]types.Object{}, map[*ast.Ident]types.Object{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []*ast.File
	for _, name := range names {
		if !strings.HasSuffix(name.Name(), ".go") || strings.HasSuffix(name.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.set, filepath.Join(dir, name.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		s.Files[name.Name()] = file
		all = append(all, file)
	}
	checker := types.Config{Importer: noImports{}, Error: func(error) {}}
	s.types, _ = checker.Check("", s.set, all, &s.Info)
	return s
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, os.ErrNotExist }

// Selections fails if a part selects a field of another.
func (s *Source) Selections(t *testing.T, parts []Part) {
	t.Helper()
	owner, selected := map[string]Part{}, map[string]bool{}
	for _, part := range parts {
		for _, name := range part.Types {
			owner[name] = part
		}
		for _, name := range part.Files {
			if s.Files[name] == nil {
				t.Errorf("there is no %s", name)
			}
		}
	}
	for name, file := range s.Files {
		ast.Inspect(file, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			for _, structure := range s.selected(selector) {
				selected[structure] = true
				if part, owned := owner[structure]; owned && !slices.Contains(part.Files, name) {
					t.Errorf("%s selects %s.%s, which only %s may",
						s.set.Position(selector.Pos()), structure, selector.Sel.Name, strings.Join(part.Files, ", "))
				}
			}
			return true
		})
	}
	for structure := range owner {
		if !selected[structure] {
			t.Errorf("there is no %s of which fields are selected", structure)
		}
	}
}

// Changes fails if a field of a record, or of a message that the record has in its field record, is changed by two parts. records are the
// names of the types of records.
func (s *Source) Changes(t *testing.T, parts []Part, records ...string) {
	t.Helper()
	owner, written := map[string]Part{}, map[string]bool{}
	for _, part := range parts {
		for field := range strings.FieldsSeq(part.Writes) {
			owner[field] = part
		}
	}
	for name, file := range s.Files {
		s.eachWrite(file, records, func(field string, at token.Pos) {
			written[field] = true
			if !slices.Contains(owner[field].Files, name) {
				t.Errorf("%s changes %s, which only %v may", s.set.Position(at), field, owner[field].Files)
			}
		})
	}
	for field := range owner {
		if !written[field] {
			t.Errorf("nobody changes %s", field)
		}
	}
}

// Records fails if a field of a record is changed outside of the files that own the record. owned has the files by the names of the
// records' types, with spaces between.
func (s *Source) Records(t *testing.T, owned map[string]string) {
	t.Helper()
	written := map[string]bool{}
	for name, file := range s.Files {
		s.eachWrite(file, slices.Collect(maps.Keys(owned)), func(field string, at token.Pos) {
			record, _, _ := strings.Cut(field, ".")
			written[record] = true
			if !slices.Contains(strings.Fields(owned[record]), name) {
				t.Errorf("%s changes %s, which only %s may", s.set.Position(at), field, owned[record])
			}
		})
	}
	for record := range owned {
		if !written[record] {
			t.Errorf("nobody changes the fields of %s", record)
		}
	}
}

// A type with more methods or fields is several things.
const mostMethods, mostFields = 40, 15

// Sizes fails for a type with more than 40 methods or 15 fields. The fields of records that have more are listed with their number,
// which may only fall.
func (s *Source) Sizes(t *testing.T, listed map[string]int) {
	t.Helper()
	found := map[string]bool{}
	for _, name := range s.types.Scope().Names() {
		of, ok := s.types.Scope().Lookup(name).Type().(*types.Named)
		if !ok {
			continue
		}
		if n := of.NumMethods(); n > mostMethods {
			t.Errorf("%s has %d methods", name, n)
		}
		structure, ok := of.Underlying().(*types.Struct)
		if !ok {
			continue
		}
		most, exception := listed[name]
		found[name] = true
		switch n := structure.NumFields(); {
		case !exception && n > mostFields:
			t.Errorf("%s has %d fields", name, n)
		case exception && n > most:
			t.Errorf("%s has %d fields, and had %d", name, n, most)
		case exception && n < most:
			t.Errorf("%s has %d fields: note it in the list, which has %d", name, n, most)
		}
	}
	for name := range listed {
		if !found[name] {
			t.Errorf("there is no struct %s", name)
		}
	}
}

// selected are the structs of which a selector selects a field: the one that is written, and those that are embedded in it on the way.
func (s *Source) selected(selector *ast.SelectorExpr) []string {
	selection := s.Info.Selections[selector]
	if selection == nil || selection.Kind() != types.FieldVal {
		return nil
	}
	var structures []string
	of := selection.Recv()
	for _, index := range selection.Index() {
		if name := nameOf(of); name != "" {
			structures = append(structures, name)
		}
		if pointer, ok := of.Underlying().(*types.Pointer); ok {
			of = pointer.Elem()
		}
		structure, ok := of.Underlying().(*types.Struct)
		if !ok || index >= structure.NumFields() {
			break
		}
		of = structure.Field(index).Type()
	}
	return structures
}

// fieldOf is the name of the struct whose field is selected; empty if it is not a field, or one of another package.
func (s *Source) fieldOf(selector *ast.SelectorExpr) string {
	selection := s.Info.Selections[selector]
	if selection == nil || selection.Kind() != types.FieldVal {
		return ""
	}
	return nameOf(selection.Recv())
}

func nameOf(of types.Type) string {
	if pointer, ok := of.(*types.Pointer); ok {
		of = pointer.Elem()
	}
	if named, ok := of.(*types.Named); ok {
		return named.Obj().Name()
	}
	return ""
}

// eachWrite calls each for every change of a field of a record, as in "app.counts", or of its message, as in "app.record.State".
func (s *Source) eachWrite(file *ast.File, records []string, each func(field string, at token.Pos)) {
	messages := map[types.Object]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		var written []ast.Expr
		switch node := node.(type) {
		case *ast.AssignStmt:
			written = node.Lhs
			for i, name := range node.Lhs { // r := a.record
				if variable, ok := name.(*ast.Ident); ok && node.Tok == token.DEFINE && len(node.Lhs) == len(node.Rhs) {
					if selector, ok := node.Rhs[i].(*ast.SelectorExpr); ok && s.isMessage(selector, records) {
						messages[s.Info.Defs[variable]] = s.fieldOf(selector)
					}
				}
			}
		case *ast.IncDecStmt:
			written = []ast.Expr{node.X}
		case *ast.CallExpr:
			if called, ok := node.Fun.(*ast.Ident); ok && (called.Name == "delete" || called.Name == "clear") {
				written = node.Args[:1]
			}
		}
		for _, expression := range written {
			if field := s.writtenField(expression, records, messages); field != "" {
				each(field, expression.Pos())
			}
		}
		return true
	})
}

func (s *Source) isMessage(selector *ast.SelectorExpr, records []string) bool {
	return selector.Sel.Name == "record" && slices.Contains(records, s.fieldOf(selector))
}

func (s *Source) writtenField(expression ast.Expr, records []string, messages map[types.Object]string) string {
	last := ""
	for {
		switch e := expression.(type) {
		case *ast.IndexExpr:
			expression = e.X
		case *ast.Ident:
			if structure := messages[s.Info.Uses[e]]; structure != "" && last != "" {
				return structure + ".record." + last
			}
			return ""
		case *ast.SelectorExpr:
			structure := s.fieldOf(e)
			switch {
			case s.isMessage(e, records):
				return structure + ".record." + last
			case slices.Contains(records, structure) && last == "":
				return structure + "." + e.Sel.Name
			case structure != "":
				return ""
			}
			expression, last = e.X, e.Sel.Name
		default:
			return ""
		}
	}
}
