package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// pageSize is how many entries are asked for at once.
const pageSize = 1000

// allApps reads a list of apps page by page.
func allApps(ctx context.Context, z *zone, request *apiv1.ListAppsRequest) (*apiv1.ListAppsResponse, error) {
	all := &apiv1.ListAppsResponse{}
	request.PageSize = pageSize
	for {
		page, err := z.apps.ListApps(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Apps = append(all.Apps, page.GetApps()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}

// allNodes reads a list of nodes page by page.
func allNodes(ctx context.Context, z *zone, request *apiv1.ListNodesRequest) (*apiv1.ListNodesResponse, error) {
	all := &apiv1.ListNodesResponse{}
	request.PageSize = pageSize
	for {
		page, err := z.nodes.ListNodes(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Nodes = append(all.Nodes, page.GetNodes()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}

// allContainers reads a list of containers page by page.
func allContainers(ctx context.Context, z *zone, request *apiv1.ListContainersRequest) (*apiv1.ListContainersResponse, error) {
	all := &apiv1.ListContainersResponse{}
	request.PageSize = pageSize
	for {
		page, err := z.containers.ListContainers(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Containers = append(all.Containers, page.GetContainers()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}

// stateFlag is a --state that takes the words which tables have.
type stateFlag struct {
	text   string
	values protoreflect.EnumValueDescriptors
}

func newStateFlag(cmd *cobra.Command, of protoreflect.EnumDescriptor) *stateFlag {
	f := &stateFlag{values: of.Values()}
	cmd.Flags().StringVar(&f.text, "state", "", "only those in this state: "+strings.Join(f.words(), ", "))
	must(cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(f.words(), cobra.ShellCompDirectiveNoFileComp)))
	return f
}

// words are the states that something listed can be in.
func (f *stateFlag) words() []string {
	var words []string
	for i := range f.values.Len() {
		if name := string(f.values.Get(i).Name()); !strings.HasSuffix(name, "_UNSPECIFIED") && name != "REMOVED" && name != "DONE" {
			words = append(words, strings.ToLower(strings.ReplaceAll(name, "_", "-")))
		}
	}
	return words
}

// number is the state that was named; zero is any.
func (f *stateFlag) number() (protoreflect.EnumNumber, error) {
	if f.text == "" {
		return 0, nil
	}
	if !slices.Contains(f.words(), f.text) {
		return 0, usagef("--state: %q is no state; take %s", f.text, strings.Join(f.words(), ", "))
	}
	value := f.values.ByName(protoreflect.Name(strings.ToUpper(strings.ReplaceAll(f.text, "-", "_"))))
	if value == nil {
		return 0, fmt.Errorf("the state %q is not known", f.text)
	}
	return value.Number(), nil
}
