// flags: -Ltarget/targets -lhidden_library -Wl,-rpath,$ORIGIN
/* Uses a library with an allocator of its own. */
int hidden_serve(int count, char **arguments);

int main(int count, char **arguments) { return hidden_serve(count, arguments); }
