/* hd_print: what the build asks the program for: hidden options.
 *   --print-directives              every directive as one line of JSON, for the docs
 *   --print-module-index FILE…      the lines of modules.index for these modules */
#pragma once

int hd_print_main(int argc, char **argv); /* the exit status */
