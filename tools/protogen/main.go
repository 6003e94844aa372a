// Command protogen compiles the .proto files below a folder and hands them to protoc plugins, so that neither
// protoc nor a copy of anybody's .proto files is needed: imports outside the folder are resolved from the Go
// packages that carry their descriptors.
//
// Usage: protogen -root proto -plugin PATH -out DIR [-opt OPTIONS] [-match SUFFIX]
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sort"

	"github.com/bufbuild/protocompile"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	log.SetFlags(0)
	root := flag.String("root", "proto", "folder that import paths are relative to")
	plugin := flag.String("plugin", "", "path of the protoc plugin to run")
	out := flag.String("out", "", "folder to write to")
	opt := flag.String("opt", "", "options for the plugin")
	under := flag.String("under", ".", "generate only for files below this folder of root")
	flag.Parse()
	if err := run(*root, *under, *plugin, *out, *opt); err != nil {
		log.Fatal("protogen: ", err)
	}
}

func run(root, under, plugin, out, opt string) error {
	var files []string
	err := filepath.WalkDir(filepath.Join(root, under), func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".proto" {
			rel, _ := filepath.Rel(root, path)
			files = append(files, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		return err
	}
	sort.Strings(files)
	compiler := protocompile.Compiler{
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{root}},
			protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
				desc, err := protoregistry.GlobalFiles.FindFileByPath(path)
				if err != nil {
					return protocompile.SearchResult{}, err
				}
				return protocompile.SearchResult{Proto: protodesc.ToFileDescriptorProto(desc)}, nil
			}),
		},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), files...)
	if err != nil {
		return err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: files, Parameter: proto.String(opt)}
	seen := map[string]bool{}
	for _, f := range compiled {
		addWithImports(request, f, seen)
	}
	answer, err := call(plugin, request)
	if err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", plugin, answer.GetError())
	}
	for _, f := range answer.File {
		path := filepath.Join(out, f.GetName())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addWithImports adds a file after everything that it imports, as plugins expect.
func addWithImports(request *pluginpb.CodeGeneratorRequest, f protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		addWithImports(request, f.Imports().Get(i).FileDescriptor, seen)
	}
	var desc *descriptorpb.FileDescriptorProto
	if wrapped, ok := f.(interface {
		FileDescriptorProto() *descriptorpb.FileDescriptorProto
	}); ok {
		desc = wrapped.FileDescriptorProto()
	} else {
		desc = protodesc.ToFileDescriptorProto(f)
	}
	request.ProtoFile = append(request.ProtoFile, desc)
}

func call(plugin string, request *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(plugin)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", plugin, err)
	}
	answer := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(stdout, answer); err != nil {
		return nil, fmt.Errorf("read what %s answered: %w", plugin, err)
	}
	return answer, nil
}
