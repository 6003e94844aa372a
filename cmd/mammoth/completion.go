package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// completeTimeout is how long completion may take.
const completeTimeout = 2 * time.Second

// completions offers names that the zone knows, for arguments and flags.
type completions struct{ *dialer }

// complete offers names of the zone; none if the zone does not answer.
func (c *completions) complete(cmd *cobra.Command, list func(context.Context, *zone) []string) ([]string, cobra.ShellCompDirective) {
	if c.checkGlobalFlags() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	z, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer z.close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	return list(ctx, z), cobra.ShellCompDirectiveNoFileComp
}

// firstArgument offers names for the first argument only.
func firstArgument(offer cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(cmd, args, typed)
	}
}

func (c *completions) completeApps(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := allApps(ctx, z, &apiv1.ListAppsRequest{})
		return collect(answer.GetApps(), (*apiv1.App).GetName)
	})
}

// completeInstances offers the instances of the app that is the first argument.
func (c *completions) completeInstances(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		app, _ := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: args[0]})
		return collect(app.GetInstances(), (*apiv1.Instance).GetId)
	})
}

// roleFlag adds --role to a command whose first argument is an app, and offers the app's roles.
func roleFlag(c *completions, cmd *cobra.Command, role *string, usage string) {
	cmd.Flags().StringVar(role, "role", "", usage)
	must(cmd.RegisterFlagCompletionFunc("role", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.complete(cmd, func(ctx context.Context, z *zone) []string {
			app, _ := z.apps.GetApp(ctx, &apiv1.GetAppRequest{Name: args[0]})
			return collect(app.GetSpec().GetRoles(), (*apiv1.RoleSpec).GetName)
		})
	}))
}

func (c *completions) completeNodes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := allNodes(ctx, z, &apiv1.ListNodesRequest{})
		return collect(answer.GetNodes(), (*apiv1.Node).GetName)
	})
}

func (c *completions) completeQueues(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := z.queues.ListQueues(ctx, &apiv1.ListQueuesRequest{})
		return collect(answer.GetQueues(), func(q *apiv1.Queue) string { return q.GetSpec().GetName() })
	})
}

func (c *completions) completeContracts(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := z.lending.ListContracts(ctx, &apiv1.ListContractsRequest{})
		return collect(answer.GetContracts(), func(k *apiv1.Contract) string { return k.GetSpec().GetName() })
	})
}

func (c *completions) completeFrameworks(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := z.frameworks.ListFrameworks(ctx, &apiv1.ListFrameworksRequest{})
		return collect(answer.GetFrameworks(), func(f *apiv1.Framework) string { return f.GetPackage().GetName() })
	})
}

func (c *completions) completeServices(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := z.registry.ListServices(ctx, &apiv1.ListServicesRequest{})
		return collect(answer.GetServices(), (*apiv1.Service).GetName)
	})
}

func (c *completions) completeImages(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.complete(cmd, func(ctx context.Context, z *zone) []string {
		answer, _ := z.images.ListImages(ctx, &apiv1.ListImagesRequest{})
		return collect(answer.GetImages(), (*apiv1.Image).GetName)
	})
}

// completeDeploy offers names of images, and files by the shell.
func (c *completions) completeDeploy(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, _ := c.completeImages(cmd, args, typed)
	return names, cobra.ShellCompDirectiveDefault
}

func collect[T any](all []T, name func(T) string) []string {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = name(one)
	}
	return names
}
