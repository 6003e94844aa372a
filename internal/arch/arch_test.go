package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/mammoth-os/mammoth"

// source is one parsed Go file of the main module.
type source struct {
	// path is relative to the repository, with slashes.
	path    string
	test    bool
	imports []string
	syntax  *ast.File
	text    string
	files   *token.FileSet
}

func (s source) dir() string { return path.Dir(s.path) }

func (s source) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.files.Position(pos).Line)
}

func (s source) generated() bool {
	return ast.IsGenerated(s.syntax)
}

var root = filepath.Join("..", "..")

// load reads the files of the main module.
func load(t *testing.T) []source {
	t.Helper()
	sources := loadFrom(t, ".")
	if len(sources) < 20 {
		t.Fatalf("found only %d Go files: the walk looks in the wrong place", len(sources))
	}
	return sources
}

// loadFrom reads the files of a module, which is in a folder of the repository.
func loadFrom(t *testing.T, dir string) []source {
	t.Helper()
	var sources []source
	files := token.NewFileSet()
	err := filepath.WalkDir(filepath.Join(root, dir), func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			if rel != dir && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || isModule(name)) {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(files, name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		file := source{path: rel, test: strings.HasSuffix(rel, "_test.go"), syntax: syntax, text: string(text), files: files}
		for _, spec := range syntax.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			file.imports = append(file.imports, imported)
		}
		sources = append(sources, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

// isModule reports whether a folder is a Go module of its own, which other rules govern.
func isModule(name string) bool {
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	return err == nil
}

// within reports whether dir is the folder or below it.
func within(dir, folder string) bool {
	return dir == folder || strings.HasPrefix(dir, folder+"/")
}

// layers says what each top-level folder may import of this module. What is not listed may be imported by nobody. There is no other
// folder.
var layers = map[string][]string{
	"cmd":             {"resourcemanager", "nodemanager", "dynamicdeploy", "companions", "appmaster", "proto", "internal", "cmd"},
	"resourcemanager": {"resourcemanager", "proto", "internal"},
	"nodemanager":     {"nodemanager", "proto", "internal"},
	"dynamicdeploy":   {"dynamicdeploy", "appmaster", "proto", "internal"},
	"companions":      {"companions", "proto", "internal"},
	"appmaster":       {"appmaster", "proto", "internal"},
	"proto":           {"proto"},
	"internal":        {"internal", "proto"},
	"examples":        {"appmaster", "companions", "proto"},
	"docs":            {"resourcemanager", "nodemanager", "proto", "internal"}, // what is drawn and listed from the code
	"test":            {"test", "resourcemanager", "nodemanager", "dynamicdeploy", "companions", "appmaster", "proto", "internal"},
	"scripts":         {},
	"tools":           {},
}

// beside are the folders that the product is not made of.
var beside = []string{"examples", "docs", "test", "scripts", "tools"}

// modules are the folders that are Go modules of their own, and what they may import of this module.
var modules = map[string][]string{
	"tools":              {},
	"test/bench/peers":   {"resourcemanager", "proto", "internal"},
	"examples/framework": {"appmaster", "proto"},
}

func TestImportsRunOneWay(t *testing.T) {
	for _, file := range load(t) {
		top, _, _ := strings.Cut(file.path, "/")
		for _, refused := range file.outside(layers[top]) {
			t.Errorf("%s imports %s: %s may import only %s", file.path, refused, top, strings.Join(layers[top], ", "))
		}
	}
}

// outside are the packages of this module that a file imports though they are in none of some folders.
func (s source) outside(allowed []string) []string {
	var refused []string
	for _, imported := range s.imports {
		rest, ours := strings.CutPrefix(imported, module+"/")
		layer, _, _ := strings.Cut(rest, "/")
		if ours && !slices.Contains(allowed, layer) && !(s.test && forTests(rest)) {
			refused = append(refused, rest)
		}
	}
	return refused
}

// hasGo reports whether a folder has Go files; what is built and tried out in the project has none.
func hasGo(t *testing.T, dir string) bool {
	found := false
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if found = found || filepath.Ext(path) == ".go"; found {
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEveryFolderIsKnown(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		if !entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || !hasGo(t, filepath.Join(root, entry.Name())) {
			continue
		}
		found = append(found, entry.Name())
		if _, known := layers[entry.Name()]; !known {
			t.Errorf("the folder %s is not known here: say what it may import", entry.Name())
		}
	}
	for folder := range layers {
		if !slices.Contains(found, folder) {
			t.Errorf("there is no folder %s", folder)
		}
	}
	for _, dir := range modulesIn(t) {
		if _, known := modules[dir]; !known {
			t.Errorf("%s is a Go module of its own that is not known here: say what it may import", dir)
		}
	}
}

func modulesIn(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return fs.SkipDir
		}
		if err == nil && entry.IsDir() && name != root && isModule(name) {
			rel, _ := filepath.Rel(root, name)
			found = append(found, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestModulesImportWhatTheyMay(t *testing.T) {
	for dir, allowed := range modules {
		for _, file := range loadFrom(t, dir) {
			for _, refused := range file.outside(allowed) {
				t.Errorf("%s imports %s: %s may import only %s", file.path, refused, dir, strings.Join(allowed, ", "))
			}
		}
	}
}

// A third party writes its own application master with what a short program can use.
func TestTheExampleOfAFrameworkIsAThirdPartys(t *testing.T) {
	const master, most = "examples/framework/main.go", 150
	found := false
	for _, file := range loadFrom(t, "examples/framework") {
		if file.path == master {
			found = true
			if lines := strings.Count(file.text, "\n"); lines > most {
				t.Errorf("%s has %d lines, and the master of a third party has at most %d", master, lines, most)
			}
		}
	}
	if !found {
		t.Errorf("there is no %s", master)
	}
}

// forTests reports whether a package is one of fakes and suites, which its name tells. Tests share them across layers: that
// there is one of each counts for more.
func forTests(dir string) bool { return strings.HasSuffix(dir, "test") || dir == "internal/testenv" }

func TestOnlyTestsImportWhatIsForTests(t *testing.T) {
	for _, file := range load(t) {
		if file.test || forTests(file.dir()) || within(file.dir(), "test") {
			continue
		}
		for _, imported := range file.imports {
			if rest, ours := strings.CutPrefix(imported, module+"/"); ours && forTests(rest) {
				t.Errorf("%s imports %s, which is for tests", file.path, rest)
			}
		}
	}
}

// pure lists the packages that decide: facts in, decisions out, time as an argument.
var pure = []string{
	"resourcemanager/zone", "resourcemanager/zone/commands", "resourcemanager/zone/endpoints", "resourcemanager/zone/framework", "resourcemanager/zone/keys",
	"resourcemanager/zone/shares", "resourcemanager/zone/waiting", "resourcemanager/access", "resourcemanager/scheduler", "resourcemanager/scheduler/grid", "resourcemanager/scheduler/heap",
	"resourcemanager/lifecycle", "nodemanager/container", "nodemanager/node", "dynamicdeploy/plan",
}

// clean is what the pure ring may import of the standard library: nothing that blocks, logs or reaches outside.
var clean = []string{"cmp", "container/heap", "container/list", "errors", "fmt", "hash/fnv", "iter", "maps", "math", "math/bits", "math/rand/v2", "slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf8"}

var pureOwn = []string{"internal/id", "internal/resource", "internal/fsm"}

// pureMore is what single packages of the pure ring may import besides: messages as data, and what computes with them. Of net and
// crypto they use what only computes.
var pureMore = map[string][]string{
	"resourcemanager/zone": {
		"proto/mammoth/api/v1", "proto/mammoth/companion/v1", "proto/mammoth/core/v1", "proto/mammoth/master/v1", "proto/mammoth/store/v1",
		"proto/mammoth/tracker/v1", "google.golang.org/protobuf/proto", "google.golang.org/protobuf/reflect/protoreflect",
		"google.golang.org/protobuf/types/known/anypb", "google.golang.org/protobuf/types/known/durationpb", "google.golang.org/protobuf/types/known/timestamppb",
		"internal/backoff", "internal/defaults", "internal/distribution", "internal/expose", "internal/peer", "internal/sentence",
		"internal/spec", "internal/token", "internal/wire",
		"resourcemanager/calendar", "resourcemanager/eventlog", "resourcemanager/store",
		"crypto/hmac", "crypto/sha256", "crypto/subtle", "encoding/base32", "encoding/binary", "net", "regexp",
	},
	"nodemanager/node": {
		"proto/mammoth/core/v1", "proto/mammoth/tracker/v1", "google.golang.org/protobuf/types/known/timestamppb",
		"internal/defaults", "internal/spec", "internal/token", "internal/wire",
	},
	"resourcemanager/zone/commands": {"proto/mammoth/api/v1", "proto/mammoth/master/v1", "google.golang.org/protobuf/types/known/anypb"},
	"resourcemanager/zone/endpoints": {
		"proto/mammoth/api/v1", "proto/mammoth/companion/v1", "proto/mammoth/core/v1", "proto/mammoth/master/v1", "proto/mammoth/store/v1",
		"google.golang.org/protobuf/proto", "internal/sentence", "internal/spec", "resourcemanager/store",
	},
	"resourcemanager/zone/framework": {
		"proto/mammoth/api/v1", "proto/mammoth/core/v1", "proto/mammoth/store/v1", "google.golang.org/protobuf/proto",
		"google.golang.org/protobuf/types/known/timestamppb", "internal/distribution", "internal/peer", "internal/sentence", "internal/spec",
		"resourcemanager/store",
	},
	"resourcemanager/zone/keys": {
		"proto/mammoth/api/v1", "proto/mammoth/core/v1", "proto/mammoth/store/v1", "proto/mammoth/tracker/v1", "google.golang.org/protobuf/proto",
		"google.golang.org/protobuf/types/known/timestamppb", "internal/token", "resourcemanager/store",
	},
	"resourcemanager/zone/shares": {
		"proto/mammoth/api/v1", "proto/mammoth/core/v1", "proto/mammoth/store/v1", "google.golang.org/protobuf/proto",
		"google.golang.org/protobuf/types/known/durationpb", "google.golang.org/protobuf/types/known/timestamppb",
		"internal/manifest", "internal/peer", "internal/spec", "internal/wire", "resourcemanager/calendar", "resourcemanager/store",
	},
	"resourcemanager/zone/waiting": {"internal/sentence", "proto/mammoth/api/v1", "google.golang.org/protobuf/types/known/timestamppb"},
	"resourcemanager/access":       {"internal/peer", "proto/mammoth/api/v1", "proto/mammoth/core/v1"},
}

func TestThePureRingTouchesNothing(t *testing.T) {
	clocks := []string{"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Since", "Until", "Tick"}
	for _, file := range load(t) {
		if file.test || !slices.Contains(pure, file.dir()) {
			continue
		}
		for _, imported := range file.imports {
			rest, ours := strings.CutPrefix(imported, module+"/")
			switch {
			case ours && (slices.Contains(pureOwn, rest) || slices.Contains(pure, rest)):
			case slices.Contains(pureMore[file.dir()], rest):
			case !ours && (slices.Contains(clean, imported) || imported == "github.com/containerd/errdefs"):
			default:
				t.Errorf("%s imports %s, which the pure ring may not", file.path, imported)
			}
		}
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := node.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(clocks, node.Sel.Name) {
					t.Errorf("%s calls time.%s: the pure ring is told the time", file.at(node.Pos()), node.Sel.Name)
				}
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine in the pure ring", file.at(node.Pos()))
			}
			return true
		})
	}
}

// A run of a simulated zone is made from its seed alone. What runs many of them, and says how long that took, is in files of its own.
func TestAWorldIsMadeFromItsSeedAlone(t *testing.T) {
	outside := []string{"test/world/report.go", "test/world/shrink.go", "test/world/failure.go"}
	own := map[string][]string{
		"time": {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Since", "Until", "Tick"},
		"rand": {"Int", "IntN", "Int64N", "Uint32", "Uint64", "Float64", "Perm", "Shuffle", "Read", "Text"},
	}
	for _, file := range load(t) {
		if file.dir() != "test/world" || file.test || slices.Contains(outside, file.path) {
			continue
		}
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := node.X.(*ast.Ident); ok && slices.Contains(own[pkg.Name], node.Sel.Name) {
					t.Errorf("%s calls %s.%s, which is not drawn from the seed", file.at(node.Pos()), pkg.Name, node.Sel.Name)
				}
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine: a world has one", file.at(node.Pos()))
			}
			return true
		})
	}
}

func TestOnlyOnePackageKnowsEachEngine(t *testing.T) {
	owners := map[string][]string{
		"github.com/docker/docker/client": {"nodemanager/runtime/docker", "test"},
		"github.com/go-zookeeper/zk":      {"internal/zk"},
	}
	for _, file := range load(t) {
		if file.test {
			continue
		}
		for _, imported := range file.imports {
			dirs, governed := owners[imported]
			if governed && !slices.ContainsFunc(dirs, func(dir string) bool { return within(file.dir(), dir) }) {
				t.Errorf("%s imports %s, which only %s may", file.path, imported, strings.Join(dirs, " and "))
			}
		}
	}
}

// A connection that is made elsewhere has other bounds, and would be left out when connections are encrypted.
func TestOnePackageMakesConnections(t *testing.T) {
	elsewhere := map[string]string{
		"grpc.NewClient": "credentials.Dial", "grpc.NewServer": "credentials.NewServer", "http.Server": "credentials.NewHTTPServer",
	}
	for _, file := range load(t) {
		if file.test || file.generated() || slices.Contains(beside, strings.SplitN(file.path, "/", 2)[0]) || within(file.dir(), "internal/credentials") || within(file.dir(), "companions/balancer/balancertest") {
			continue
		}
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			var made ast.Expr
			switch node := node.(type) {
			case *ast.CallExpr:
				made = node.Fun
			case *ast.CompositeLit:
				made = node.Type
			}
			if named, ok := made.(*ast.SelectorExpr); ok {
				if pkg, ok := named.X.(*ast.Ident); ok && elsewhere[pkg.Name+"."+named.Sel.Name] != "" {
					name := pkg.Name + "." + named.Sel.Name
					t.Errorf("%s makes a %s: call %s", file.at(node.Pos()), name, elsewhere[name])
				}
			}
			return true
		})
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, file := range load(t) {
		if file.test || file.generated() {
			continue
		}
		documented[file.dir()] = documented[file.dir()] || file.syntax.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestFoldersAreNounsOfTheDomain(t *testing.T) {
	for _, file := range load(t) {
		for part := range strings.SplitSeq(file.dir(), "/") {
			if slices.Contains([]string{"util", "utils", "common", "helpers", "helper", "base", "types", "models", "misc"}, part) {
				t.Errorf("%s: a folder named %s says nothing", file.path, part)
			}
		}
	}
}

func TestHabits(t *testing.T) {
	for _, file := range load(t) {
		if file.generated() {
			continue
		}
		if lines := strings.Count(file.text, "\n"); lines > 700 {
			t.Errorf("%s has %d lines: split it near 500", file.path, lines)
		}
		ast.Inspect(file.syntax, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.FuncDecl:
				if node.Name.Name == "init" && node.Recv == nil {
					t.Errorf("%s: init hides wiring that belongs into main", file.at(node.Pos()))
				}
			case *ast.CallExpr:
				called, ok := node.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				pkg, _ := called.X.(*ast.Ident)
				if pkg == nil {
					return true
				}
				if file.test && pkg.Name == "time" && called.Sel.Name == "Sleep" && !within(file.dir(), "test") && !strings.Contains(file.text, "testing/synctest") {
					t.Errorf("%s sleeps: wait for what is awaited, or use testing/synctest", file.at(node.Pos()))
				}
				if pkg.Name == "t" && strings.HasPrefix(called.Sel.Name, "Skip") && file.dir() != "internal/testenv" {
					t.Errorf("%s skips: ask for what is needed with testenv.Need", file.at(node.Pos()))
				}
			}
			return true
		})
		for _, group := range file.syntax.Comments {
			for _, word := range []string{"TODO", "FIXME", "XXX"} {
				if strings.Contains(group.Text(), word) {
					t.Errorf("%s: %s in a comment: do it, or say why not", file.at(group.Pos()), word)
				}
			}
		}
	}
}
