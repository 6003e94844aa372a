package zone

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strings"
	"testing"
)

// part says what belongs to a part of the zone.
type part struct {
	// types are the part itself and what is its own of an app or a node. Only files select their fields.
	types, files []string
	// writes are the fields of apps, nodes and containers, and of their records, that only files change; all parts read them.
	writes string
}

var parts = []part{
	{[]string{"damage", "loss"}, []string{"damage.go"}, "node.unknown"},
	{[]string{"units"}, []string{"units.go"}, ""},
	{[]string{"scheduling"}, []string{"scheduling.go"}, ""},
	{[]string{"apps"}, []string{"apps.go", "claims.go"}, "app.removed app.queueLost app.record.State app.record.Reason"},
	{[]string{"packages"}, []string{"packages.go"}, ""},
	{
		[]string{"desired", "appCounts"},
		[]string{"desired.go", "counts.go"},
		"app.counts app.record.Generation app.record.EndBy app.record.RestartBefore app.record.CountedAt " +
			"app.record.Outcome",
	},
	{
		[]string{"versions", "appStatus", "heldStatus"},
		[]string{"versions.go", "status.go"},
		"app.record.Spec app.record.Version app.record.Versions app.record.Revised app.record.Status " +
			"app.record.FromVersion app.record.FromRoles",
	},
	{
		[]string{"attempts", "appAttempt"},
		[]string{"attempts.go", "external.go"},
		"app.record.Attempt app.record.EarlierAttempts app.record.Failures app.record.AvoidNodes app.record.RetryAt",
	},
	{[]string{"asks", "appAsks"}, []string{"asks.go"}, ""},
	{
		[]string{"masters", "appMaster"},
		[]string{"masters.go", "instances.go", "release.go"},
		"app.instances app.record.ObservedGeneration",
	},
	{[]string{"commands", "openCommand"}, []string{"commands.go"}, ""},
	{[]string{"endpoints", "appEndpoints", "publication"}, []string{"endpoints.go", "traffic.go"}, ""},
	{[]string{"balancers"}, []string{"balancers.go"}, ""},
	{
		[]string{"nodes"},
		[]string{"nodes.go", "nodeview.go", "reports.go", "drain.go"},
		"node.inScheduler node.record.State node.record.Reason node.record.Health node.record.Attributes node.record.Drain " +
			"node.record.DrainReason node.record.Address node.record.ContainerManager node.record.Version node.record.Capacity " +
			"node.record.RegisteredAt node.record.FolderId",
	},
	{[]string{"sessions", "nodeSession"}, []string{"sessions.go", "twins.go"}, ""},
	{[]string{"frameworks"}, []string{"frameworks.go"}, "node.frameworks"},
	{
		[]string{"leases", "appLeases"},
		[]string{"leases.go", "grants.go", "targets.go"},
		"app.containers node.containers container.notice container.record.Lease container.record.Status container.record.DoneAt " +
			"container.record.Stopping container.record.StopReason container.record.StopMessage container.record.Acknowledged " +
			"container.record.Group container.record.Duration container.record.Service",
	},
	{[]string{"keys"}, []string{"keys.go"}, ""},
	{
		[]string{"views", "appView", "nodeView", "instanceView", "instanceFacts", "pace", "late", "quotaViews"},
		[]string{"views.go", "shown.go", "appview.go", "instanceview.go"},
		"",
	},
	{[]string{"waits", "appWait"}, []string{"waits.go"}, "app.record.Waiting"},
	{[]string{"explainer"}, []string{"explainer.go", "explain.go", "plan.go", "instancereason.go"}, ""},
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) {
	source := read(t)
	owner, selected := map[string]part{}, map[string]bool{}
	for _, part := range parts {
		for _, name := range part.types {
			owner[name] = part
		}
	}
	for name, file := range source.files {
		ast.Inspect(file, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			structure := source.fieldOf(selector)
			selected[structure] = true
			if part, owned := owner[structure]; owned && !slices.Contains(part.files, name) {
				t.Errorf("%s selects %s.%s, which only %s may",
					source.set.Position(selector.Pos()), structure, selector.Sel.Name, strings.Join(part.files, ", "))
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

// What all parts read of an app, a node and a container, one part alone changes.
func TestEachFieldOfARecordIsChangedByOnePart(t *testing.T) {
	source := read(t)
	owner, written := map[string]part{}, map[string]bool{}
	for _, part := range parts {
		for _, field := range strings.Fields(part.writes) {
			owner[field] = part
		}
	}
	for name, file := range source.files {
		source.eachWrite(file, func(field string, at token.Pos) {
			written[field] = true
			if !slices.Contains(owner[field].files, name) {
				t.Errorf("%s changes %s, which only %v may", source.set.Position(at), field, owner[field].files)
			}
		})
	}
	for field := range owner {
		if !written[field] {
			t.Errorf("nobody changes %s", field)
		}
	}
}

// What people look at between turns, and what is explained to them, adds nothing to the turn.
func TestReadingChangesNothing(t *testing.T) {
	source := read(t)
	calls := map[types.Object][]types.Object{}
	var reading []types.Object
	for name, file := range source.files {
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			of := source.info.Defs[function.Name]
			if slices.Contains([]string{"reads.go", "explainer.go", "explain.go", "plan.go", "instancereason.go"}, name) {
				reading = append(reading, of)
			}
			ast.Inspect(function, func(node ast.Node) bool {
				if selector, ok := node.(*ast.SelectorExpr); ok && source.info.Selections[selector] != nil {
					calls[of] = append(calls[of], source.info.Selections[selector].Obj())
				} else if name, ok := node.(*ast.Ident); ok {
					calls[of] = append(calls[of], source.info.Uses[name])
				}
				return true
			})
		}
	}
	reached := map[types.Object]bool{}
	for len(reading) > 0 {
		of := reading[0]
		reading = reading[1:]
		for _, called := range calls[of] {
			if function, ok := called.(*types.Func); ok && !reached[called] {
				reached[called] = true
				reading = append(reading, called)
				if slices.Contains([]string{"Emit", "Save", "Forget", "wakeBy", "touch"}, function.Name()) {
					t.Errorf("%s calls %s", of.Name(), function.Name())
				}
			}
		}
	}
	if len(reached) < 50 {
		t.Errorf("only %d functions are reached", len(reached))
	}
}

// A type with more methods or fields is several things.
func TestNoTypeIsSeveralThings(t *testing.T) {
	const mostMethods, mostFields = 40, 15
	scope := read(t).zone.Scope()
	for _, name := range scope.Names() {
		of, ok := scope.Lookup(name).Type().(*types.Named)
		if !ok {
			continue
		}
		if n := of.NumMethods(); n > mostMethods {
			t.Errorf("%s has %d methods", name, n)
		}
		if structure, ok := of.Underlying().(*types.Struct); ok && structure.NumFields() > mostFields {
			t.Errorf("%s has %d fields", name, structure.NumFields())
		}
	}
}

// source is this package without its tests, and the types of what is declared in it. What depends on other packages has no types.
type source struct {
	set   *token.FileSet
	files map[string]*ast.File
	zone  *types.Package
	info  types.Info
}

func read(t *testing.T) source {
	t.Helper()
	s := source{set: token.NewFileSet(), files: map[string]*ast.File{}}
	s.info.Selections, s.info.Uses, s.info.Defs = map[*ast.SelectorExpr]*types.Selection{}, map[*ast.Ident]types.Object{}, map[*ast.Ident]types.Object{}
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var all []*ast.File
	for _, name := range names {
		if !strings.HasSuffix(name.Name(), ".go") || strings.HasSuffix(name.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.set, name.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		s.files[name.Name()] = file
		all = append(all, file)
	}
	checker := types.Config{Importer: noImports{}, Error: func(error) {}}
	s.zone, _ = checker.Check("zone", s.set, all, &s.info)
	return s
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, os.ErrNotExist }

// fieldOf is the name of the struct whose field is selected; empty if it is not a field, or one of another package.
func (s source) fieldOf(selector *ast.SelectorExpr) string {
	selection := s.info.Selections[selector]
	if selection == nil || selection.Kind() != types.FieldVal {
		return ""
	}
	of := selection.Recv()
	if pointer, ok := of.(*types.Pointer); ok {
		of = pointer.Elem()
	}
	if named, ok := of.(*types.Named); ok {
		return named.Obj().Name()
	}
	return ""
}

// eachWrite calls each for every change of a field of an app, a node or a container, as in "app.counts", or of its record, as in
// "app.record.State".
func (s source) eachWrite(file *ast.File, each func(field string, at token.Pos)) {
	records := map[types.Object]string{}
	ast.Inspect(file, func(node ast.Node) bool {
		var written []ast.Expr
		switch node := node.(type) {
		case *ast.AssignStmt:
			written = node.Lhs
			for i, name := range node.Lhs { // r := a.record
				if variable, ok := name.(*ast.Ident); ok && node.Tok == token.DEFINE && len(node.Lhs) == len(node.Rhs) {
					if selector, ok := node.Rhs[i].(*ast.SelectorExpr); ok && s.isRecord(selector) {
						records[s.info.Defs[variable]] = s.fieldOf(selector)
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
			if field := s.writtenField(expression, records); field != "" {
				each(field, expression.Pos())
			}
		}
		return true
	})
}

func (s source) isRecord(selector *ast.SelectorExpr) bool {
	return selector.Sel.Name == "record" && slices.Contains([]string{"app", "node", "container"}, s.fieldOf(selector))
}

func (s source) writtenField(expression ast.Expr, records map[types.Object]string) string {
	last := ""
	for {
		switch e := expression.(type) {
		case *ast.IndexExpr:
			expression = e.X
		case *ast.Ident:
			if structure := records[s.info.Uses[e]]; structure != "" && last != "" {
				return structure + ".record." + last
			}
			return ""
		case *ast.SelectorExpr:
			structure := s.fieldOf(e)
			switch {
			case s.isRecord(e):
				return structure + ".record." + last
			case slices.Contains([]string{"app", "node", "container"}, structure) && last == "":
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
