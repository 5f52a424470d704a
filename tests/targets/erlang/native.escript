#!/usr/bin/env escript
%%! -noinput
%% Native code in Erlang's runtime: the library whose path is the argument serves a test's
%% commands, on a thread of the runtime's own.
-module(native).
-mode(compile).
-nifs([serve/0]).

main([Library]) ->
    ok = erlang:load_nif(Library, 0),
    serve().

serve() ->
    erlang:nif_error(not_loaded).
