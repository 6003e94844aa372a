package scheduler

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// owners are the files that may select the fields of each part, by the field names through which parts are reached. A part is the
// type of that name; its data about a queue or a shape is a struct in those.
var owners = map[string]struct {
	structs []string
	files   []string
}{
	"fleet":        {[]string{"fleet"}, []string{"fleet.go", "search.go", "label.go", "filter.go"}},
	"apps":         {[]string{"apps"}, []string{"app.go"}},
	"containers":   {[]string{"containers"}, []string{"container.go"}},
	"turn":         {[]string{"queueTurn"}, []string{"tree.go", "queue.go", "queuespec.go"}},
	"tree":         {[]string{"tree", "queueSet"}, []string{"tree.go", "queuespec.go"}},
	"backlog":      {[]string{"backlog", "queueBacklog", "shapeBacklog"}, []string{"backlog.go", "bucket.go"}},
	"nominations":  {[]string{"nominations"}, []string{"nominate.go", "reserve.go"}},
	"reservations": {[]string{"queueReservations"}, []string{"nominate.go", "reserve.go"}},
	"preemption":   {[]string{"preemption"}, []string{"preempt.go", "victims.go", "notice.go"}},
	"reclaim":      {[]string{"queueReclaim"}, []string{"preempt.go", "victims.go", "notice.go", "held.go"}},
	"lending":      {[]string{"lending"}, []string{"lending.go", "lendreserve.go", "lendreturn.go"}},
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) {
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	files := map[string]*ast.File{}
	fields := map[string]map[string]bool{}
	for _, name := range names {
		if !strings.HasSuffix(name.Name(), ".go") || strings.HasSuffix(name.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[name.Name()] = file
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if structure, ok := spec.Type.(*ast.StructType); ok {
				fields[spec.Name.Name] = map[string]bool{}
				for _, field := range structure.Fields.List {
					for _, name := range field.Names {
						fields[spec.Name.Name][name.Name] = true
					}
				}
			}
			return true
		})
	}
	for path, owner := range owners {
		for _, structure := range owner.structs {
			if len(fields[structure]) == 0 {
				t.Errorf("there is no struct %s", structure)
			}
		}
		for name, file := range files {
			if slices.Contains(owner.files, name) {
				continue
			}
			ast.Inspect(file, func(node ast.Node) bool {
				selector, ok := node.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				within, ok := selector.X.(*ast.SelectorExpr)
				if !ok || within.Sel.Name != path {
					return true
				}
				for _, structure := range owner.structs {
					if fields[structure][selector.Sel.Name] {
						t.Errorf("%s selects %s.%s, which only %s may", set.Position(selector.Pos()), path, selector.Sel.Name, strings.Join(owner.files, ", "))
					}
				}
				return true
			})
		}
	}
}
