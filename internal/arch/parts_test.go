package arch_test

import (
	"go/ast"
	"go/types"
	"os"
	"slices"
	"strings"
	"testing"
)

// parts lists, by package, the types that own their state, and the files that may select their fields. Another part calls their methods.
var parts = map[string]map[string]string{
	"nodemanager/runtime/docker": {
		"Runtime":    "docker.go exec.go observe.go remove.go start.go watch.go",
		"engine":     "engine.go",
		"identities": "identity.go",
		"images":     "image.go",
		"pulls":      "image.go",
		"hostPorts":  "ports.go",
		"starts":     "starts.go",
		"discards":   "discard.go",
		"diskQuotas": "diskquota.go",
		"oomKills":   "oom.go",
		"signals":    "signals.go",
		"restorer":   "restore.go",
		"output":     "logs.go",
		"execution":  "exec.go",
	},
	"dynamicdeploy/driver": {
		"Master":     "commands.go decide.go master.go memo.go preview.go room.go status.go",
		"roles":      "role.go",
		"containers": "containers.go",
		"takeover":   "takeover.go",
		"previews":   "preview.go",
		"control":    "control.go",
		"sent":       "sent.go",
	},
	"dynamicdeploy/plan": {
		"Role":        "memo.go next.go role.go",
		"names":       "names.go",
		"slots":       "slots.go",
		"nodes":       "nodes.go",
		"node":        "nodes.go",
		"rollout":     "rollout.go",
		"order":       "order.go",
		"provisional": "failure.go",
		"view":        "view.go",
		"chooser":     "choose.go mode.go",
		"report":      "report.go",
	},
	"internal/manifest": {"decoder": "decode.go"},
	"resourcemanager/images": {
		"Store":          "http.go import.go registry.go store.go",
		"blobs":          "blobs.go",
		"contents":       "contents.go",
		"pendingBlobs":   "pending.go",
		"quotas":         "quota.go",
		"reservation":    "quota.go",
		"uploads":        "uploads.go",
		"upload":         "uploads.go",
		"examiner":       "examiner.go",
		"limiter":        "limiter.go",
		"collector":      "collector.go",
		"repositories":   "registry.go",
		"archiveUploads": "http.go",
	},
}

// records lists, by package, the types whose fields all parts read, and the files that may change them.
var records = map[string]map[string]string{
	"dynamicdeploy/driver": {"role": "role.go", "container": "containers.go"},
	"dynamicdeploy/plan":   {"slot": "slot.go", "container": "slot.go"},
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) {
	sources := load(t)
	for dir, owned := range parts {
		selected := map[string]bool{}
		info := check(dir, sources)
		for _, file := range sources {
			if file.dir() != dir || file.test {
				continue
			}
			ast.Inspect(file.syntax, func(node ast.Node) bool {
				selector, ok := node.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				structure := ownerOf(info.Selections[selector])
				selected[structure] = true
				files, governed := owned[structure]
				if governed && !slices.Contains(strings.Fields(files), strings.TrimPrefix(file.path, dir+"/")) {
					t.Errorf("%s selects %s.%s, which only %s may", file.at(selector.Pos()), structure, selector.Sel.Name, files)
				}
				return true
			})
		}
		for structure := range owned {
			if !selected[structure] {
				t.Errorf("%s has no %s of which fields are selected", dir, structure)
			}
		}
	}
}

func TestARecordIsChangedByItsOwnMethods(t *testing.T) {
	sources := load(t)
	for dir, owned := range records {
		changed := map[string]bool{}
		info := check(dir, sources)
		for _, file := range sources {
			if file.dir() != dir || file.test {
				continue
			}
			ast.Inspect(file.syntax, func(node ast.Node) bool {
				var written []ast.Expr
				switch node := node.(type) {
				case *ast.AssignStmt:
					written = node.Lhs
				case *ast.IncDecStmt:
					written = []ast.Expr{node.X}
				}
				for _, expression := range written {
					record := changedBy(expression, owned, info)
					changed[record] = true
					if files := owned[record]; record != "" && !slices.Contains(strings.Fields(files), strings.TrimPrefix(file.path, dir+"/")) {
						t.Errorf("%s changes a field of %s, which only %s may", file.at(expression.Pos()), record, files)
					}
				}
				return true
			})
		}
		for record := range owned {
			if !changed[record] {
				t.Errorf("nobody changes the fields of %s in %s", record, dir)
			}
		}
	}
}

// changedBy is the record that an assignment to an expression changes; empty if it changes none.
func changedBy(expression ast.Expr, owned map[string]string, info types.Info) string {
	for {
		switch e := expression.(type) {
		case *ast.IndexExpr:
			expression = e.X
		case *ast.SelectorExpr:
			if structure := ownerOf(info.Selections[e]); owned[structure] != "" {
				return structure
			}
			expression = e.X
		default:
			return ""
		}
	}
}

// check finds the types of what a package declares. What depends on other packages has none.
func check(dir string, sources []source) types.Info {
	info := types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	checker := types.Config{Importer: noImports{}, Error: func(error) {}}
	var files []*ast.File
	for _, file := range sources {
		if file.dir() == dir && !file.test {
			files = append(files, file.syntax)
		}
	}
	_, _ = checker.Check(dir, sources[0].files, files, &info)
	return info
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, os.ErrNotExist }

// ownerOf is the name of the struct whose field is selected; empty if none is.
func ownerOf(selection *types.Selection) string {
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

// A type with more methods is several things.
func TestNoTypeIsSeveralThings(t *testing.T) {
	const most = 40
	methods := map[string]int{}
	for _, file := range load(t) {
		top, _, _ := strings.Cut(file.path, "/")
		if _, governed := layers[top]; file.test || file.generated() || !governed || forTests(file.dir()) {
			continue
		}
		for _, declaration := range file.syntax.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok && function.Recv != nil {
				of := function.Recv.List[0].Type
				if pointer, ok := of.(*ast.StarExpr); ok {
					of = pointer.X
				}
				if name, ok := of.(*ast.Ident); ok {
					methods[file.dir()+"."+name.Name]++
				}
			}
		}
	}
	for of, n := range methods {
		if n > max(most, longer[of]) {
			t.Errorf("%s has %d methods: divide it into what owns its state", of, n)
		}
	}
}

// longer are the types that have more methods still, and how many at most.
var longer = map[string]int{
	"resourcemanager/term.Term": 58,
}
