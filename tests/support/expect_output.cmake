# cmake -D "COMMAND=a;b;c" -D "WORDS=regex;regex" [-D FAILS=yes] -P expect_output.cmake: the command must end with code 0
# (FAILS: must not), and print each of WORDS.
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
message("${output}\nexit code ${code}")
if(FAILS AND "${code}" STREQUAL "0")
  message(FATAL_ERROR "expected a failure")
elseif(NOT FAILS AND NOT "${code}" STREQUAL "0")
  message(FATAL_ERROR "expected success")
endif()
foreach(words IN LISTS WORDS)
  if(NOT output MATCHES "${words}")
    message(FATAL_ERROR "expected \"${words}\" in the output")
  endif()
endforeach()
